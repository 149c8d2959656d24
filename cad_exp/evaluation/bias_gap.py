"""The bias gap of a neutral prompt between two attributes (Decoding Diffusion, arXiv 2410.21314).

A direction is a prompt's mean activation less that of a base prompt (`representations.prompt_directions`). The gap is
the cosine of the neutral direction ("a person") with the first attribute's ("a man"), less that with the second's ("a
woman"): -2 to 2, above 0 where the neutral prompt is drawn more like the first.

Directions of few seeds are noisy, which pulls cosines towards 0 and, by the base that all share, upwards. Both act on
the two cosines alike. Seeds are resampled together: those of all prompts that have the same starting noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cad_exp.evaluation.intervals.formulas import Bounds, Interval
from cad_exp.evaluation.intervals.resampled import centred

RESAMPLES = 2000


@dataclass(frozen=True)
class BiasGap:
    """The gap and its bootstrap `drawn` (resamples,); first, second: the cosines whose difference it is."""

    value: float
    drawn: np.ndarray
    first: float
    second: float

    @property
    def words(self) -> str:
        """How `interval` is found, for results.json."""
        return f"95 % paired bootstrap over seeds, {len(self.drawn)} resamples, centred"

    @property
    def change_words(self) -> str:
        """How the interval of `change` is found, for results.json."""
        return self.words

    def interval(self) -> Bounds:
        """Return (low, high)."""
        _, low, high = centred(self.value, self.drawn)
        return low, high

    def change(self, before: BiasGap) -> Interval:
        """Return the difference to another gap of the same seeds, with the same resamples."""
        return centred(self.value - before.value, self.drawn - before.drawn)


def bias_gap(
    neutral: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    base: np.ndarray,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> BiasGap:
    """Measure to which of two attributes a neutral prompt leans.

    Args:
        neutral: activations (seeds, d) of the prompt that names no attribute.
        first: of the prompt that names the first attribute, from the same starting noise, row by row.
        second: of the prompt that names the second.
        base: of the prompt that all directions start from.
        resamples: of the seeds.
        seed: of the resamples.

    Raises:
        ValueError: arrays of different shapes, or fewer than two seeds.
    """
    activations = np.stack([np.asarray(each, np.float64) for each in (neutral, first, second, base)])
    number = activations.shape[1]
    if number < 2:
        raise ValueError("a gap of one seed has no interval: give at least two")
    own = _cosines(activations.mean(1))
    picked = np.random.default_rng([seed, 41]).integers(number, size=(resamples, number))
    shares = np.stack([np.bincount(rows, minlength=number) for rows in picked]) / number
    drawn = np.array([_cosines(each) for each in np.einsum("rs,psd->rpd", shares, activations)])
    return BiasGap(float(own[0] - own[1]), drawn[:, 0] - drawn[:, 1], *map(float, own))


def _cosines(means: np.ndarray) -> np.ndarray:
    """Return the cosines (2,) of the first direction with the second and third; means (4, d), the base last."""
    directions = means[:3] - means[3]
    units = directions / np.maximum(np.linalg.norm(directions, axis=1, keepdims=True), 1e-300)
    found: np.ndarray = units[1:] @ units[0]
    return found
