"""The mean of one number per latent, with its bootstrap over latents."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cad_exp.evaluation.intervals.formulas import Bounds, Interval

RESAMPLES = 2000


@dataclass(frozen=True)
class OverLatents:
    """A mean over latents with its means in bootstrap resamples of latents, `drawn` (resamples,).

    The interval is of the dictionary: what another draw of as many latents like these would give, on the same images.
    It does not hold what other images or another seed of the training would change.
    """

    value: float
    drawn: np.ndarray

    @classmethod
    def of(cls, values: np.ndarray, seed: int = 0, resamples: int = RESAMPLES) -> OverLatents:
        """Return the mean of values (L,), L at least 1, and its bootstrap.

        How often each distinct value is drawn is multinomial, so that many equal values cost no more than one.
        """
        distinct, counts = np.unique(np.asarray(values, np.float64), return_counts=True)
        rng = np.random.default_rng([seed, 23])
        drawn = rng.multinomial(len(values), counts / len(values), resamples) @ distinct / len(values)
        return cls(float(np.mean(values)), drawn)

    @property
    def words(self) -> str:
        """How `interval` is found, for results.json."""
        return f"95 % percentile bootstrap over latents, {len(self.drawn)} resamples; none for equal values"

    @property
    def change_words(self) -> str:
        """How the interval of `change` is found, for results.json."""
        return f"95 % percentile bootstrap, each dictionary's latents drawn apart, {len(self.drawn)} resamples"

    def interval(self) -> Bounds | None:
        """Return (low, high); None for one latent or equal values, whose spread nobody has seen."""
        return _bounds(self.value, self.drawn)

    def change(self, before: OverLatents) -> Interval:
        """Return the difference to another dictionary: not paired, for no latent of one belongs to one of the other."""
        value = self.value - before.value
        # Rolled by one: resamples of equal number may come from the same random numbers.
        limits = _bounds(value, self.drawn - np.roll(before.drawn, 1))
        return (value, *(limits or (None, None)))


def _bounds(value: float, drawn: np.ndarray) -> Bounds | None:
    if np.ptp(drawn) <= 1e-12 * max(1.0, abs(value)):
        return None
    low, high = np.percentile(drawn, [2.5, 97.5])
    return min(float(low), value), max(float(high), value)
