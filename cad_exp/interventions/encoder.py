"""What reads the latents of an activation: the encoder of a sparse autoencoder, or projections onto centred directions.

A latent's value depends on the whole activation where only the k largest of a token act, so an encoder keeps all its
rows, also where an edit changes few latents.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

TENSORS = ("weight", "bias", "centre")


@dataclass(frozen=True)
class Encoder:
    """z = select(ReLU(weight (h - centre) + bias)): the values of all latents at every position.

    weight: (n, d). bias: (n,). centre: (d,). k: only the k largest of a token act; None: all that reach `threshold`.
    signed: z = weight (h - centre) + bias as it is, for plain directions.
    """

    weight: Tensor
    bias: Tensor
    centre: Tensor
    k: int | None = None
    threshold: float = 0.0
    signed: bool = False

    def values(self, h: Tensor) -> Tensor:
        """Return the latents' values (..., n) of activations h (..., d); differentiable in h."""
        pre = (h - self.centre) @ self.weight.T + self.bias
        if self.signed:
            return pre
        if self.k is None:
            return torch.where((pre >= self.threshold) & (pre > 0), pre, torch.zeros_like(pre))
        largest, places = pre.topk(min(self.k, pre.shape[-1]), dim=-1, sorted=False)
        return torch.zeros_like(pre).scatter(-1, places, largest.relu())

    def to(self, like: Tensor) -> Encoder:
        """Return the encoder on the device and in the type of an activation."""
        return replace(self, **{name: getattr(self, name).to(like.device, like.dtype) for name in TENSORS})

    @property
    def tensors(self) -> dict[str, Tensor]:
        """What a file holds of it."""
        return {name: getattr(self, name).detach().float().cpu() for name in TENSORS}

    @property
    def facts(self) -> dict[str, Any]:
        """The rest, as JSON-able values."""
        return {"k": self.k, "threshold": self.threshold, "signed": self.signed}

    @classmethod
    def restored(cls, tensors: dict[str, Tensor], facts: dict[str, Any]) -> Encoder:
        """Return the encoder of these tensors and facts."""
        parts = tensors["weight"], tensors["bias"], tensors["centre"]
        return cls(*parts, facts["k"], float(facts["threshold"]), bool(facts["signed"]))


def fault(tensors: dict[str, Tensor], facts: Any, features: int, most: int) -> str | None:
    """Return what keeps tensors and facts from a file from being an encoder; None where nothing does.

    features: of the activation; most: the largest number of a latent that is asked for.
    """
    if set(tensors) != set(TENSORS) or not isinstance(facts, dict) or set(facts) != {"k", "threshold", "signed"}:
        return "lacks a part of the encoder of its latents"
    weight, bias, centre = (tensors[name] for name in TENSORS)
    if weight.dim() != 2 or bias.shape != weight.shape[:1] or centre.shape != weight.shape[1:]:
        return "has an encoder whose parts do not fit one another"
    if weight.shape[1] != features or most >= len(weight):
        return "has an encoder that does not fit its latents"
    if not all(each.is_floating_point() and bool(each.isfinite().all()) for each in tensors.values()):
        return "has an encoder with values that are no finite numbers"
    k, threshold = facts["k"], facts["threshold"]
    if not (k is None or (type(k) is int and k > 0)) or type(threshold) not in (int, float) or threshold < 0:
        return "has an encoder with settings that mean nothing"
    return None
