"""Tokens: activations at single positions, what autoencoders learn from. Images' rows are never mixed.

On guided trajectories: each image's caption is walked from noise to image; the rows of the prompt are read, at every
step. On noised images: as `activations` reads them. Of many positions some are drawn at random, seeded by (seed, image,
t), the same for all hookpoints with as many positions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cad_exp.interventions.gating import Tap, watched
from cad_exp.interventions.networks import Networks
from cad_exp.models.pipeline import DiffusionModel
from cad_exp.representations.activations import Noising, extract
from cad_exp.representations.hookpoints import Hookpoint, taps
from cad_exp.utils.errors import UserError

MEAN, ALL = "mean", "all"
Positions = int | str  # so many of them, `mean` over all of them, or `all`
Progress = Callable[[int, int], Any]


@dataclass(frozen=True)
class Tokens:
    """Tokens of some images.

    values: hookpoint -> (images, tokens, features) fp32. t: (tokens,) the timestep of each; positions: hookpoint ->
    (images, tokens) the position of each, -1 for a mean. latents: (images, C, h, w) clean, at the end of trajectories.
    """

    values: dict[str, Tensor]
    t: dict[str, Tensor]
    positions: dict[str, Tensor]
    latents: Tensor | None = None


@dataclass(frozen=True)
class Walking:
    """How captions are walked: steps, guidance, the prompt of guidance's other half, seed of the starting noise."""

    steps: int
    guidance: float
    base_prompt: str = ""
    seed: int = 0


@torch.no_grad()
def walked(
    model: DiffusionModel,
    captions: Sequence[str],
    images: Sequence[int],
    hookpoints: Sequence[Hookpoint],
    walking: Walking,
    positions: Positions = ALL,
    progress: Progress | None = None,
) -> Tokens:
    """Return tokens of guided trajectories, one for each caption, which are walked together.

    Args:
        model: whose denoiser is read.
        captions: the prompts.
        images: the images' numbers, from which the starting noise and the drawn positions are seeded.
        hookpoints: places of the denoiser.
        walking: how.
        positions: of each step.
        progress: called with (steps done of all trajectories, steps in all).

    Raises:
        UserError: a hookpoint of a text encoder, where a prompt's tokens are no image's.
    """
    wanted = _of_denoiser(hookpoints)
    seeds = [_seed(walking.seed, image, 0) for image in images]
    seen: dict[Tap, Tensor] = {}
    found, times = _Found(images, walking.seed, positions), list[int]()
    path = model.trajectory(captions, walking.base_prompt, seeds, walking.steps, walking.guidance)
    with watched(Networks.of(model), wanted, lambda tap, x: seen.__setitem__(tap, x[: len(captions)].float())):
        for number, step in enumerate(path):
            times.append(step.t)
            for each in hookpoints:
                x = step.x.movedim(1, -1) if each.tap is None else seen[each.tap]
                found.add(each.name, number, x)
            if progress:
                progress((number + 1) * len(images), walking.steps * len(images))
    guided = step.base + model.family.steering(walking.guidance) * (step.cond - step.base)
    end = model.predicted_x0(step.x, torch.full((len(images),), step.t), guided)
    return replace(found.tokens(times), latents=end.cpu())


def noised(
    model: DiffusionModel,
    latents: Tensor,
    images: Sequence[int],
    hookpoints: Sequence[Hookpoint],
    noising: Noising,
    prompts: Sequence[str] = ("",),
    positions: Positions = ALL,
    batch_size: int = 64,
    progress: Progress | None = None,
) -> Tokens:
    """Return tokens of noised images; the arguments are those of `activations.extract`."""
    _of_denoiser(hookpoints)
    maps = extract(model, latents, images, hookpoints, noising, prompts, "map", batch_size, progress)
    found, times = _Found(images, noising.seed, positions), list[int]()
    for number, t in enumerate(noising.timesteps):
        for draw in range(noising.draws):
            for each in hookpoints:
                found.add(each.name, len(times), maps[each.name][:, number, draw])
            times.append(t)
    return found.tokens(times)


class _Found:
    """Tokens as they come, step by step."""

    def __init__(self, images: Sequence[int], seed: int, positions: Positions):
        self.images, self.seed, self.asked = images, seed, positions
        self.values: dict[str, list[Tensor]] = {}
        self.positions: dict[str, list[Tensor]] = {}

    def add(self, name: str, step: int, x: Tensor) -> None:
        """Keep some positions of activations x (images, ..., features)."""
        x = x.reshape(len(x), -1, x.shape[-1]).float().cpu()
        if self.asked == MEAN:
            kept, places = x.mean(1, keepdim=True), torch.full((len(x), 1), -1)
        else:
            places = torch.stack([self._draw(image, step, x.shape[1]) for image in self.images])
            kept = x.gather(1, places[:, :, None].expand(-1, -1, x.shape[-1]))
        self.values.setdefault(name, []).append(kept)
        self.positions.setdefault(name, []).append(places)

    def _draw(self, image: int, step: int, number: int) -> Tensor:
        if self.asked == ALL or int(self.asked) >= number:
            return torch.arange(number)
        drawn = torch.randperm(number, generator=torch.Generator().manual_seed(_seed(self.seed, image, step + 1)))
        return drawn[: int(self.asked)].sort().values

    def tokens(self, times: Sequence[int]) -> Tokens:
        values = {name: torch.cat(parts, 1) for name, parts in self.values.items()}
        each = {name: parts[0].shape[1] for name, parts in self.values.items()}
        t = {name: torch.tensor(times).repeat_interleave(number) for name, number in each.items()}
        return Tokens(values, t, {name: torch.cat(parts, 1) for name, parts in self.positions.items()})


def _of_denoiser(hookpoints: Sequence[Hookpoint]) -> list[Tap]:
    if text := [each.name for each in hookpoints if each.kind == "text"]:
        raise UserError(f"'{text[0]}' is of a text encoder, whose tokens are words: name places of the denoiser")
    return taps(hookpoints, text=False)


def _seed(seed: int, image: int, use: int) -> int:
    return int(np.random.SeedSequence([seed, image, use]).generate_state(1, np.uint64)[0] >> 1)
