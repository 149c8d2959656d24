"""Numbers that are not finite, found while images are made: what nobody can see is never judged."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from cad_exp.utils.errors import UserError, not_finite

PRECISIONS = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}


class Watch:
    """Looks at latents after every step and at what the decoder gives, and raises a UserError at the first that is bad.

    prompts, seeds: of the images that the DiffusionModel makes together.
    """

    def __init__(self, prompts: list[str], seeds: list[int], model: Any):
        self.prompts, self.seeds, self.model = prompts, seeds, model
        self.decoded: list[Tensor] = []

    def latents(self, step: int, latents: Tensor | None) -> None:
        """Check the latents (B, ...) after a step of the denoising, counted from 1."""
        if latents is not None:
            self._check(finite_rows(latents), f"latents after step {step} of the denoising")

    @contextmanager
    def decoder(self, decoder: nn.Module) -> Iterator[None]:
        """Note what the decoder gives inside the block: clipping to 0..1 would make an infinite pixel look white."""
        handle = decoder.register_forward_hook(lambda module, given, made: self.decoded.append(finite_rows(made)))
        try:
            yield
        finally:
            handle.remove()

    def pixels(self, images: Tensor) -> None:
        """Check the finished images (B, ...), and what the decoder gave for them."""
        good = finite_rows(images)
        decoded = torch.cat(self.decoded) if self.decoded else torch.ones(1, dtype=torch.bool)
        if len(decoded) == len(good):
            good = good & decoded
        elif not decoded.all():  # it worked on tiles
            good[0] = False
        self._check(good, "pixels from the decoder")

    def _check(self, good: Tensor, where: str) -> None:
        if good.all():
            return
        first = int((~good).nonzero()[0])
        which = f"the image of '{self.prompts[first]}' with seed {self.seeds[first]}"
        raise refusal(f"{which} ({where})", self.model)


def finite_rows(x: Tensor) -> Tensor:
    """Whether each row of x (B, ...) is finite: (B,) bool on the CPU."""
    return torch.isfinite(x.detach()).flatten(1).all(1).cpu()


def broken_weight(modules: dict[str, nn.Module]) -> str | None:
    """Return the name of the first weight that holds NaN or infinity; None where all are finite."""
    every: Iterable[tuple[str, Tensor]] = (
        (f"{part}.{name}", weight) for part, module in modules.items() for name, weight in module.named_parameters()
    )
    return next((name for name, weight in every if not weight.is_meta and not torch.isfinite(weight).all()), None)


def refusal(what: str, model: Any) -> UserError:
    """Return an error for numbers of a DiffusionModel that are not finite; None: of whatever has no model."""
    name = broken_weight(getattr(model, "networks", {}))
    cause = f"the model's weights hold non-finite values: {name}" if name else ""
    precision = PRECISIONS.get(model.dtype) if hasattr(model, "dtype") else None
    return not_finite(f"{what} is not finite", precision, cause)
