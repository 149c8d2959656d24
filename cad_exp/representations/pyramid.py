"""A pyramid of features: what several layers say of each position, side by side (VPD, arXiv 2303.02153)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cad_exp.models.pipeline import DiffusionModel
from cad_exp.representations.activations import noise_of, observe
from cad_exp.representations.hookpoints import Hookpoint

PATCH = 8  # pixels per side and position


@torch.no_grad()
def pyramid(
    model: DiffusionModel,
    latents: Tensor,
    images: Sequence[int],
    hookpoints: Sequence[Hookpoint],
    t: int,
    seed: int,
    side: int,
    batch_size: int = 64,
    tick: Callable[[int], Any] = lambda done: None,
) -> np.ndarray:
    """Return (N, side^2, features) fp32: every hookpoint's map at the same positions, without a prompt.

    latents: clean, (N, C, h, w). images: their numbers (N,), from which noise is seeded. hookpoints: as
    `choose_hookpoints` returns them. t: timestep of the noise. tick: called with the rows done since its last call.
    """
    parts, condition = [], model.encode([""])
    for start in range(0, len(latents), batch_size):
        own = latents[start : start + batch_size].cpu()
        noise = torch.stack([noise_of(own.shape[1:], seed, int(n), t, 0) for n in images[start : start + batch_size]])
        at = torch.full((len(own),), t)
        seen = observe(model, model.add_noise(own, noise, at), at, condition, hookpoints)
        parts.append(torch.cat([at_positions(seen[each.name].cpu(), side) for each in hookpoints], -1))
        tick(len(own))
    return torch.cat(parts).numpy()


def patches(pictures: np.ndarray, side: int) -> np.ndarray:
    """Return images (N, H, W, 3) uint8 as (N, side^2, PATCH^2 3) fp32 in 0..1: the pixels at each position."""
    pixels = torch.from_numpy(np.array(pictures)).movedim(-1, 1).float() / 255
    pixels = F.adaptive_avg_pool2d(pixels, side * PATCH)
    return F.unfold(pixels, PATCH, stride=PATCH).movedim(-1, 1).contiguous().numpy()


def at_positions(activation: Tensor, side: int) -> Tensor:
    """Return a square map (B, positions, features) as (B, side^2, features).

    It is averaged where it is finer, and bilinear where it is coarser.
    """
    own = int(round(activation.shape[1] ** 0.5))
    square = activation.movedim(-1, 1).unflatten(-1, (own, own))
    if own > side:
        square = F.adaptive_avg_pool2d(square, side)
    elif own < side:
        square = F.interpolate(square, size=(side, side), mode="bilinear", align_corners=False)
    found: Tensor = square.flatten(2).movedim(-1, 1)
    return found
