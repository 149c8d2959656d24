"""95 % intervals of what is estimated from images, and of paired changes. None of them collapses at 0 or 1.

Every class holds one variant's numbers. `value` is the estimate; `interval()` its (low, high), None where the data say
nothing of the spread; `change(before)` is (value, low, high) of the difference of two variants on the same images, in
the same order. The value always lies inside. `words` and `change_words` name the methods for results.json.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Protocol

import numpy as np
from scipy import stats

Bounds = tuple[float, float]
Interval = tuple[float, float | None, float | None]  # value, low, high
LEVEL = 0.95


class Estimate(Protocol):
    """What every class of this file offers."""

    words: str
    change_words: str

    @property
    def value(self) -> float: ...

    def interval(self) -> Bounds | None: ...

    def change(self, before: Estimate) -> Interval: ...


def estimated(estimate: Estimate) -> Interval:
    """(value, low, high) of an estimate."""
    return (estimate.value, *(estimate.interval() or (None, None)))


def wilson(share: float, n: float, level: float = LEVEL) -> Bounds:
    """Wilson's score interval of a share of n (E. B. Wilson, JASA 22, 1927); n need not be whole."""
    z2 = stats.norm.ppf((1 + level) / 2) ** 2 / n
    centre, reach = share + z2 / 2, math.sqrt(z2 * (share * (1 - share) + z2 / 4))
    low, high = (centre - reach) / (1 + z2), (centre + reach) / (1 + z2)
    return (0.0 if share <= 0 else float(low)), (1.0 if share >= 1 else float(high))


def student(values: np.ndarray, level: float = LEVEL) -> Bounds | None:
    """Student's t interval of a mean; None for one value, or for equal values, whose spread nobody has seen."""
    x = np.asarray(values, dtype=np.float64)
    if len(x) < 2 or np.ptp(x) == 0:
        return None
    reach = stats.t.ppf((1 + level) / 2, len(x) - 1) * x.std(ddof=1) / math.sqrt(len(x))
    return float(x.mean() - reach), float(x.mean() + reach)


@dataclass(frozen=True)
class Fourfold:
    """How often pairs hold what is asked for: shares in both images, only before, only after; n pairs."""

    both: float
    only_before: float
    only_after: float
    n: float

    @classmethod
    def of(cls, before: np.ndarray, after: np.ndarray) -> Fourfold:
        a, b = np.asarray(before, bool), np.asarray(after, bool)
        return cls(*(float(np.mean(x)) for x in (a & b, a & ~b, ~a & b)), len(a))

    def change(self, level: float = LEVEL) -> Interval:
        """Newcombe's hybrid score interval of a paired difference (Statistics in Medicine 17, 1998, method 10).

        Squares the distances to both Wilson limits and adds them, less twice their product times the correlation phi of
        the pairs (corrected for continuity); phi is 0 where a row or a column of the table is empty.
        """
        before, after = self.both + self.only_before, self.both + self.only_after
        (low_b, high_b), (low_a, high_a) = wilson(before, self.n, level), wilson(after, self.n, level)
        down, up = (after - low_a, high_b - before), (high_a - after, before - low_b)
        phi, value = self._phi(before, after), after - before
        lower, upper = (math.sqrt(max(x * x - 2 * phi * x * y + y * y, 0.0)) for x, y in (down, up))
        return value, max(-1.0, value - lower), min(1.0, value + upper)

    def _phi(self, before: float, after: float) -> float:
        product = before * (1 - before) * after * (1 - after)
        cross = self.both - before * after
        if cross > 0:
            cross = max(cross - 1 / (2 * self.n), 0.0)
        return cross / math.sqrt(product) if product > 1e-12 else 0.0


def _alike(sizes: Sequence[int]) -> float:
    """How many images of one label tell the mean over labels as well as so many of each."""
    return len(sizes) ** 2 / float(np.sum(1 / np.asarray(sizes)))


def garwood(count: float, level: float = LEVEL) -> Bounds:
    """The exact limits of a Poisson count (F. Garwood, Biometrika 28, 1936): of 0 up to 3.69."""
    tail = (1 - level) / 2
    low = float(stats.chi2.ppf(tail, 2 * count)) / 2 if count > 0 else 0.0
    return low, float(stats.chi2.isf(tail, 2 * (count + 1))) / 2


def _each(groups: int) -> float:
    """The level at which each of so many intervals is taken so that all hold at LEVEL (Sidak)."""
    return LEVEL ** (1 / groups)


@dataclass(frozen=True)
class Share:
    """The share of images, of 0 and 1 each."""

    values: np.ndarray
    words: ClassVar[str] = "95 % Wilson score interval"
    change_words: ClassVar[str] = "95 % Newcombe interval of paired shares (method 10)"

    @property
    def value(self) -> float:
        return float(np.mean(self.values))

    def interval(self) -> Bounds:
        return wilson(self.value, len(self.values))

    def change(self, before: Share) -> Interval:
        return Fourfold.of(before.values, self.values).change()


@dataclass(frozen=True)
class Mean:
    """The mean of one continuous number per image."""

    values: np.ndarray
    words: ClassVar[str] = "95 % Student t over images; none for one image or equal values"
    change_words: ClassVar[str] = "95 % Student t of the differences per image"

    @property
    def value(self) -> float:
        return float(np.mean(self.values))

    def interval(self) -> Bounds | None:
        return student(self.values)

    def change(self, before: Mean) -> Interval:
        return estimated(Mean(np.asarray(self.values, float) - np.asarray(before.values, float)))


@dataclass(frozen=True)
class Shares:
    """Shares per label: their mean, or (`worst`) the lowest of them. groups: 0 and 1 per image of each label.

    The mean is taken for one share of as many images as tell it equally well. Labels that differ only make it less
    spread out than such a share (W. Hoeffding, Annals of Mathematical Statistics 27, 1956), so the interval is
    conservative. The labels' own limits, squared and added (MOVER), cover too seldom with a dozen images a label.
    """

    groups: Sequence[np.ndarray]
    worst: bool = False

    @property
    def words(self) -> str:
        simultaneous = "95 % simultaneous Wilson intervals over labels (Sidak): lowest low to lowest high"
        return simultaneous if self.worst else "95 % Wilson score interval, every label weighing alike"

    @property
    def change_words(self) -> str:
        worst = "95 %, conservative: the labels' simultaneous Newcombe intervals of paired shares, lowest to highest"
        return worst if self.worst else f"{Share.change_words}, every label weighing alike"

    @property
    def value(self) -> float:
        return float((np.min if self.worst else np.mean)([np.mean(group) for group in self.groups]))

    def interval(self) -> Bounds:
        if not self.worst:
            return wilson(self.value, _alike([len(group) for group in self.groups]))
        limits = [wilson(float(np.mean(group)), len(group), _each(len(self.groups))) for group in self.groups]
        return min(low for low, _ in limits), min(high for _, high in limits)

    def change(self, before: Shares) -> Interval:
        """Of the worst: a minimum changes by no less than the lowest and no more than the highest label's change."""
        tables = [Fourfold.of(a, b) for a, b in zip(before.groups, self.groups, strict=True)]
        if self.worst:
            parts = [table.change(_each(len(tables))) for table in tables]
            return self.value - before.value, min(p[1] for p in parts), max(p[2] for p in parts)
        cells = np.mean([(t.both, t.only_before, t.only_after) for t in tables], axis=0)
        return Fourfold(*map(float, cells), _alike([t.n for t in tables])).change()


@dataclass(frozen=True)
class Means:
    """Means of a continuous number per label: their mean, or (`worst`) the highest of them."""

    groups: Sequence[np.ndarray]
    worst: bool = False

    @property
    def words(self) -> str:
        worst = "95 % simultaneous Student t over labels (Sidak): highest low to highest high"
        return worst if self.worst else "95 % Student t, variance pooled within labels (over labels for one image each)"

    @property
    def change_words(self) -> str:
        worst = "95 %, conservative: the labels' simultaneous Student t of paired differences, lowest to highest"
        return worst if self.worst else "95 % Student t of paired differences, variance pooled within labels"

    @property
    def value(self) -> float:
        return float((np.max if self.worst else np.mean)([np.mean(group) for group in self.groups]))

    def interval(self) -> Bounds | None:
        if not self.worst:
            return self._pooled()
        limits = [student(group, _each(len(self.groups))) for group in self.groups]
        if any(limit is None for limit in limits):
            return None
        return max(low for low, _ in limits), max(high for _, high in limits)

    def _pooled(self) -> Bounds | None:
        """Of the mean of the labels' means: their common variance within labels, as in the analysis of variance."""
        sizes = np.array([len(group) for group in self.groups])
        free = int((sizes - 1).sum())
        if free == 0:
            return student(np.array([np.mean(group) for group in self.groups]))
        variance = sum(((np.asarray(g, float) - np.mean(g)) ** 2).sum() for g in self.groups) / free
        if variance == 0:
            return None
        reach = stats.t.ppf((1 + LEVEL) / 2, free) * math.sqrt(variance * (1 / sizes).sum()) / len(sizes)
        return self.value - float(reach), self.value + float(reach)

    def change(self, before: Means) -> Interval:
        pairs = zip(self.groups, before.groups, strict=True)
        differences = [np.asarray(b, float) - np.asarray(a, float) for b, a in pairs]
        if not self.worst:
            return estimated(Means(differences))
        limits = [student(each, _each(len(differences))) for each in differences]
        value = self.value - before.value
        if any(limit is None for limit in limits):
            return value, None, None
        return value, min(low for low, _ in limits), max(high for _, high in limits)


@dataclass(frozen=True)
class Total:
    """The sum of counts per image: at least as wide as the Poisson interval, wider where images differ more."""

    values: np.ndarray
    words: ClassVar[str] = "95 %, the wider of Garwood's exact Poisson limits and Student t over images"
    change_words: ClassVar[str] = "95 %, the wider of Student t of paired differences and square-and-add Poisson limits"

    @property
    def value(self) -> float:
        return float(np.sum(self.values))

    def interval(self) -> Bounds:
        low, high = _wider(garwood(self.value), student(self.values), len(self.values))
        return max(0.0, low), high

    def change(self, before: Total) -> Interval:
        """What rose less what fell, each a count; as in McNemar's test only images that differ count."""
        steps = np.asarray(self.values, float) - np.asarray(before.values, float)
        rose, fell = float(steps[steps > 0].sum()), float(-steps[steps < 0].sum())
        (low_r, high_r), (low_f, high_f) = garwood(rose), garwood(fell)
        value = rose - fell
        counted = value - math.hypot(rose - low_r, high_f - fell), value + math.hypot(high_r - rose, fell - low_f)
        return (value, *_wider(counted, student(steps), len(steps)))


def _wider(counted: Bounds, spread: Bounds | None, n: int) -> Bounds:
    """The union of two intervals of a sum, the second of them given for the mean of n."""
    if spread is None:
        return counted
    return min(counted[0], n * spread[0]), max(counted[1], n * spread[1])


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
        _, low, high = _centred(self.value, self.drawn)
        return max(0.0, low), high

    def change(self, before: Bootstrapped) -> Interval:
        return _centred(self.value - before.value, self.drawn - before.drawn)


def _centred(value: float, drawn: np.ndarray) -> Interval:
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
