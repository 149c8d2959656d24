"""Activations at hookpoints: one forward pass for each (image, t, draw), which ends after the last hook.

1. An image's latents are brought to timestep t with noise of its own: seeded by (seed, image, t, draw), so that no
   batch, order or number of processes changes it.
2. The network runs once; hooks read all hookpoints, and what comes after the last one is not computed.
3. Maps and token sequences become (positions, features), and are pooled at once: nothing is kept that nobody asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cad_exp.interventions.gating import Tap, watched
from cad_exp.interventions.networks import Networks
from cad_exp.models.families.condition import Condition
from cad_exp.models.pipeline import DiffusionModel
from cad_exp.representations.hookpoints import NOISY_LATENT, Hookpoint, taps
from cad_exp.utils.errors import UserError

GRID = 8  # positions per side to which a map is averaged at most, and a noisy latent before it is read as one vector


class _Finished(Exception):
    """Everything that was asked for has been seen."""


@dataclass(frozen=True)
class Noising:
    """How clean latents become noisy: at which timesteps (int, of the model), how often, with which seed."""

    timesteps: tuple[int, ...]
    draws: int = 1
    seed: int = 0


def noise_of(shape: Sequence[int], seed: int, image: int, t: int, draw: int) -> Tensor:
    """Return standard normal noise of one latent (C, h, w), the same wherever and whenever it is drawn."""
    state = int(np.random.SeedSequence([seed, image, t, draw]).generate_state(1, np.uint64)[0] >> 1)
    return torch.randn(tuple(shape), generator=torch.Generator().manual_seed(state))


def observe(
    model: DiffusionModel, x: Tensor, t: Tensor, condition: Condition, hookpoints: Sequence[Hookpoint]
) -> dict[str, Tensor]:
    """Return the activation (B, positions, features) fp32 at every hookpoint of the denoiser, by name.

    Differentiable in the noisy latents.

    Args:
        model: whose denoiser runs once, up to the last of the hookpoints.
        x: noisy latents (B, C, h, w).
        t: their timesteps (B,).
        condition: what the prompts tell the denoiser, B rows or one for all.
        hookpoints: as `choose_hookpoints` returns them; those of text encoders are left out.

    Raises:
        UserError: a hookpoint whose module is not reached, or is called more than once.
    """
    wanted = taps(hookpoints, text=False)
    seen: dict[Tap, Tensor] = {}
    with _until_all_are_seen(model, wanted, seen):
        model.predict(x, t, condition)
    if missing := [tap.module for tap in wanted if tap not in seen]:
        raise UserError(f"the network does not run through {missing[0]} in a forward pass: leave this hookpoint out")
    by_name = {tap.module: activation for tap, activation in seen.items()}
    found = {each.name: by_name[each.name] for each in hookpoints if each.name in by_name}
    if any(each.name == NOISY_LATENT for each in hookpoints):
        found[NOISY_LATENT] = _positions(x.float().movedim(1, -1))
    return found


@contextmanager
def _until_all_are_seen(model: DiffusionModel, wanted: Sequence[Tap], seen: dict[Tap, Tensor]) -> Iterator[None]:
    def see(tap: Tap, activation: Tensor) -> None:
        if tap in seen:
            raise UserError(f"the network calls {tap.module} more than once in a forward pass: leave it out")
        seen[tap] = _positions(activation.float())
        if len(seen) == len(wanted):
            raise _Finished

    try:
        if wanted:
            with watched(Networks.of(model), wanted, see):
                yield
        else:
            yield
    except _Finished:
        pass


def _positions(activation: Tensor) -> Tensor:
    """(B, ..., features) to (B, positions, features)."""
    return activation.reshape(len(activation), -1, activation.shape[-1])


def pool(name: str, activation: Tensor, pooling: str) -> Tensor:
    """Pool an activation (B, positions, features).

    `mean` gives (B, features). `grid` gives a square map on at most GRID x GRID positions; `map` leaves it.
    The noisy latent is never averaged over all positions, for hardly anything is left of it then: in place of its mean
    there is its grid as one vector.
    """
    if pooling == "map":
        return activation
    if pooling == "grid":
        return gridded(activation)
    if name != NOISY_LATENT or not _side(activation):
        return activation.mean(1)
    return gridded(activation).movedim(1, -1).flatten(1)


def gridded(activation: Tensor) -> Tensor:
    """Average a square map (B, positions, features) to at most GRID x GRID positions; what is not square stays."""
    side = _side(activation)
    if side <= GRID:
        return activation
    square = activation.movedim(1, -1).reshape(len(activation), -1, side, side)
    return F.adaptive_avg_pool2d(square, GRID).flatten(2).movedim(1, -1)


def _side(activation: Tensor) -> int:
    """Return the positions per side of a square map; 0 for what is not square."""
    side = int(round(activation.shape[1] ** 0.5))
    return side if side * side == activation.shape[1] else 0


@torch.no_grad()
def extract(
    model: DiffusionModel,
    latents: Tensor,
    images: Sequence[int],
    hookpoints: Sequence[Hookpoint],
    noising: Noising,
    prompts: Sequence[str] = ("",),
    pooling: str = "mean",
    batch_size: int = 64,
    progress: Callable[[int, int], Any] | None = None,
) -> dict[str, Tensor]:
    """Return activations (images, timesteps, draws, ...) fp32 on the CPU at every hookpoint, by name.

    Args:
        model: whose denoiser is looked at.
        latents: clean latents (N, C, h, w) of the images.
        images: the images' numbers (N,), from which their noise is seeded.
        hookpoints: the places; a layer of a text encoder gives the same for all timesteps and draws.
        noising: timesteps, draws and seed.
        prompts: one for all images, or one for each.
        pooling: `mean` over positions, giving (..., features), or `grid` or `map`, giving (..., positions, features).
        batch_size: rows of one forward pass.
        progress: called with (rows done, rows in all).
    """
    if len(prompts) not in (1, len(images)):
        raise UserError(f"{len(prompts)} prompts for {len(images)} images: give one for all, or one for each")
    rows = [(n, t, draw) for n in range(len(images)) for t in noising.timesteps for draw in range(noising.draws)]
    texts = _texts(model, hookpoints, list(prompts), pooling)
    condition, parts = model.encode(list(prompts)), dict[str, list[Tensor]]()
    for start in range(0, len(rows), batch_size):
        batch = rows[start : start + batch_size]
        number = torch.tensor([n for n, _, _ in batch])
        t = torch.tensor([t for _, t, _ in batch])
        noise = [noise_of(latents.shape[1:], noising.seed, int(images[n]), t_, draw) for n, t_, draw in batch]
        x = model.add_noise(latents[number].cpu(), torch.stack(noise), t)
        told = condition if len(prompts) == 1 else condition[number]
        for name, activation in observe(model, x, t, told, hookpoints).items():
            parts.setdefault(name, []).append(pool(name, activation, pooling).cpu())
        if progress:
            progress(min(start + batch_size, len(rows)), len(rows))
    shape = (len(images), len(noising.timesteps), noising.draws)
    found = {name: torch.cat(pieces) for name, pieces in parts.items()}
    found = {name: each.reshape(*shape, *each.shape[1:]) for name, each in found.items()}
    for name, each in texts.items():
        each = each[:, None, None].expand(len(images), shape[1], shape[2], *each.shape[1:])
        found[name] = each.contiguous()
    return {each.name: found[each.name] for each in hookpoints}


def _texts(
    model: DiffusionModel, hookpoints: Sequence[Hookpoint], prompts: list[str], pooling: str
) -> dict[str, Tensor]:
    """Activations of the text encoders' layers under the prompts, (prompts, ...), by name."""
    wanted, seen = taps(hookpoints, text=True), dict[Tap, Tensor]()
    if wanted:

        def see(tap: Tap, activation: Tensor) -> None:
            seen.setdefault(tap, activation.float())

        with watched(Networks.of(model), wanted, see):
            model.encode(prompts)
    return {tap.module: pool(tap.module, _positions(x), pooling).cpu() for tap, x in seen.items()}
