"""Estimates whose spread is found by resampling: distances between sets of images."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
from scipy import stats

from cad_exp.evaluation.intervals.estimate import estimated
from cad_exp.evaluation.intervals.formulas import LEVEL, Bounded, Bounds, Interval


@dataclass(frozen=True)
class Bootstrapped:
    """A distance of distributions with its bootstrap `drawn` (resamples,), the same images drawn for every variant.

    Resampling with replacement itself raises the distance (fewer distinct images), so the resampled spread is centred
    on the value instead of read off as percentiles.
    """

    value: float
    drawn: np.ndarray

    @property
    def words(self) -> str:
        return f"95 % bootstrap over generated images, {len(self.drawn)} resamples, centred"

    @property
    def change_words(self) -> str:
        return f"95 % paired bootstrap over the same generated images, {len(self.drawn)} resamples, centred"

    def interval(self) -> Bounds:
        _, low, high = centred(self.value, self.drawn)
        return max(0.0, low), high

    def change(self, before: Bootstrapped) -> Interval:
        return centred(self.value - before.value, self.drawn - before.drawn)


def centred(value: float, drawn: np.ndarray) -> Bounded:
    """Return (value, low, high): the 95 % spread of resampled values around their own mean, moved to the value."""
    low, high = np.percentile(drawn - drawn.mean(), [2.5, 97.5])
    return value, value + min(float(low), 0.0), value + max(float(high), 0.0)


@dataclass(frozen=True)
class Jackknifed:
    """A two-sample statistic with its delete-one values: without each of n images, without each of m references.

    The variance is the sum of both samples' (B. Efron and C. Stein, Annals of Statistics 9, 1981), the quantile
    Student's with the smaller sample's freedom.
    """

    value: float
    without: np.ndarray
    without_reference: np.ndarray
    words: ClassVar[str] = (
        "95 % Student t, delete-one jackknife over generated and reference images; "
        "reaches 0 at least, for a squared distance is not negative"
    )
    change_words: ClassVar[str] = "95 % Student t, paired delete-one jackknife over generated and reference images"

    @cached_property
    def _reach(self) -> float | None:
        samples = (self.without, self.without_reference)
        if min(map(len, samples)) < 3:
            return None
        variance = sum((len(x) - 1) / len(x) * ((x - x.mean()) ** 2).sum() for x in samples)
        return float(stats.t.ppf((1 + LEVEL) / 2, min(map(len, samples)) - 1) * math.sqrt(variance))

    def interval(self) -> Bounds | None:
        if self._reach is None:
            return None
        return min(self.value, max(0.0, self.value - self._reach)), max(0.0, self.value + self._reach)

    def change(self, before: Jackknifed) -> Interval:
        parts = (self.without - before.without, self.without_reference - before.without_reference)
        reach, value = Jackknifed(0.0, *parts)._reach, self.value - before.value
        return (value, None, None) if reach is None else (value, value - reach, value + reach)


@dataclass(frozen=True)
class LeftOut:
    """A statistic of one set of images, with its values without each of them (n,): the delete-one jackknife.

    B. Efron and C. Stein, Annals of Statistics 9, 1981; the quantile is Student's.
    """

    value: float
    without: np.ndarray
    words: ClassVar[str] = "95 % Student t, delete-one jackknife over images"
    change_words: ClassVar[str] = "95 % Student t, paired delete-one jackknife over images"

    def interval(self) -> Bounds | None:
        n = len(self.without)
        if n < 3 or np.ptp(self.without) < 1e-15:  # of equal values nobody has seen the spread
            return None
        variance = (n - 1) / n * ((self.without - self.without.mean()) ** 2).sum()
        reach = float(stats.t.ppf((1 + LEVEL) / 2, n - 1) * math.sqrt(variance))
        return self.value - reach, self.value + reach

    def change(self, before: LeftOut) -> Interval:
        return estimated(LeftOut(self.value - before.value, self.without - before.without))


@dataclass(frozen=True)
class Permuted:
    """What a statistic is by chance: its values (times,) for labels in random order."""

    values: np.ndarray

    @property
    def words(self) -> str:
        return f"the middle 95 % of {len(self.values)} random orders of the labels"

    @property
    def change_words(self) -> str:
        return self.words

    @property
    def value(self) -> float:
        return float(np.mean(self.values))

    def interval(self) -> Bounds:
        low, high = np.percentile(self.values, [2.5, 97.5])
        return float(low), float(high)

    def change(self, before: Permuted) -> Interval:
        return estimated(Permuted(self.values - before.values))
