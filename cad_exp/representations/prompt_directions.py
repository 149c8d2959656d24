"""Prompt directions: what a prompt adds to an activation, and which prompts a vector resembles (arXiv 2410.21314).

1. The activation at a hookpoint under a prompt is averaged over seeds, and over steps and positions of each. Less that
   of a neutral prompt it is the prompt's direction.
2. All prompts of a bank share most of their directions: that something is asked for at all. So directions are centred,
   each less the mean over the bank, and the choice of the neutral prompt changes no centred direction.
3. A vector is named by the prompts whose centred directions have the largest cosines with it.
4. Two controls. Random vectors have a nearest prompt too, so a name counts above the cosine that these reach
   (`random_level`). And other seeds of a prompt must be named by this prompt (`ranks`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from cad_exp.models.pipeline import DiffusionModel
from cad_exp.representations.hookpoints import Hookpoint
from cad_exp.representations.tokens import MEAN, Walking, walked

QUANTILE, DRAWN = 0.95, 2000  # of random vectors


@dataclass(frozen=True)
class Bank:
    """Prompts and what each adds at one hookpoint.

    directions: (prompts, d), each prompt's mean activation less `neutral` (d,).
    """

    prompts: tuple[str, ...]
    directions: Tensor
    neutral: Tensor

    @classmethod
    def of(cls, prompts: Sequence[str], activations: Sequence[Tensor], neutral: Tensor | None = None) -> Bank:
        """Return the bank of some prompts.

        Args:
            prompts: their words, at least two.
            activations: of each prompt (seeds, d); the number of seeds may differ.
            neutral: activations (seeds, d) of the neutral prompt; None takes the mean over the bank.

        Raises:
            ValueError: fewer than two prompts, or not one set of activations for each.
        """
        if len(prompts) < 2 or len(prompts) != len(activations):
            raise ValueError(f"{len(prompts)} prompts and {len(activations)} activations: a bank has two at least")
        means = torch.stack([each.mean(0) for each in activations])
        start = means.mean(0) if neutral is None else neutral.mean(0)
        return cls(tuple(prompts), means - start, start)

    @cached_property
    def centred(self) -> Tensor:
        """The directions less their mean, (prompts, d)."""
        return self.directions - self.directions.mean(0)

    def cosines(self, vectors: Tensor) -> Tensor:
        """Return the cosines (n, prompts) of vectors (n, d) with the centred directions; 0 for a vector of zeros.

        The vectors are differences already, such as a latent's direction. Activations go through `relative` first.
        """
        return F.normalize(vectors, dim=1) @ F.normalize(self.centred, dim=1).T

    def relative(self, activations: Tensor) -> Tensor:
        """Return activations (n, d) less the neutral one and the bank's mean direction: centred as directions are."""
        return activations - self.neutral - self.directions.mean(0)

    def names(self, vector: Tensor, top: int = 5) -> list[tuple[str, float]]:
        """Return the prompts nearest to a vector (d,) with their cosines, the nearest first."""
        found = self.cosines(vector[None])[0]
        order = found.argsort(descending=True, stable=True)[:top]
        return [(self.prompts[i], float(found[i])) for i in order]

    def ranks(self, activations: Tensor, own: Tensor) -> Tensor:
        """Return at which place, 0 the first, each activation (n, d) names its own prompt (n,) int."""
        cosines = self.cosines(self.relative(activations))
        return (cosines > cosines.gather(1, own[:, None])).sum(1)

    def random_level(
        self, covariance: Tensor | None = None, quantile: float = QUANTILE, number: int = DRAWN, seed: int = 0
    ) -> float:
        """Return which largest cosine random vectors stay below, in a share `quantile` of `number` draws.

        covariance: (d, d) of the vectors, such as that of the hookpoint's tokens, where few directions hold most of the
        variance and random vectors come nearer to prompts; None draws all directions alike.
        """
        drawn = torch.randn(number, self.directions.shape[1], generator=torch.Generator().manual_seed(seed))
        if covariance is not None:
            values, vectors = torch.linalg.eigh(covariance.double())
            drawn = drawn @ (vectors * values.clamp_min(0).sqrt()).T.float()
        nearest = self.cosines(drawn.to(self.directions)).max(1).values
        return float(torch.quantile(nearest, quantile))


def by_prompt(captions: Sequence[str], activations: Tensor, least: int = 2) -> tuple[list[str], list[Tensor]]:
    """Return the distinct captions that at least `least` images have, and the activations (seeds, d) of each.

    activations: (images, d), each image's mean over its tokens; each image has a seed of its own.
    """
    rows: dict[str, list[int]] = {}
    for row, caption in enumerate(captions):
        rows.setdefault(caption, []).append(row)
    kept = {caption: numbers for caption, numbers in rows.items() if len(numbers) >= least}
    return list(kept), [activations[numbers] for numbers in kept.values()]


def walked_prompts(
    model: DiffusionModel,
    prompts: Sequence[str],
    seeds: Sequence[int],
    hookpoints: Sequence[Hookpoint],
    walking: Walking,
    batch_size: int = 50,
    progress: Callable[[int, int], Any] | None = None,
) -> dict[str, Tensor]:
    """Return activations (prompts, seeds, d) by hookpoint, each the mean over all positions and steps of a trajectory.

    All prompts start from the same noise, so that seeds can be compared, and resampled, in pairs.

    Args:
        model: whose denoiser is read.
        prompts: their words.
        seeds: numbers from which the starting noise is drawn, beside `walking.seed`.
        hookpoints: places of the denoiser.
        walking: steps, guidance and base prompt.
        batch_size: trajectories at once.
        progress: called with (trajectories done, trajectories in all).
    """
    rows = [(prompt, seed) for prompt in prompts for seed in seeds]
    parts: dict[str, list[Tensor]] = {each.name: [] for each in hookpoints}
    for start in range(0, len(rows), batch_size):
        batch = rows[start : start + batch_size]
        captions, numbers = [prompt for prompt, _ in batch], [seed for _, seed in batch]
        found = walked(model, captions, numbers, hookpoints, walking, MEAN)
        for name, values in found.values.items():
            parts[name].append(values.mean(1))
        if progress:
            progress(start + len(batch), len(rows))
    return {name: torch.cat(values).unflatten(0, (len(prompts), len(seeds))) for name, values in parts.items()}
