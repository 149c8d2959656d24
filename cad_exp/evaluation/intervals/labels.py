"""Estimates over labels, each with images of its own: the mean over labels, or the worst of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from cad_exp.evaluation.intervals.estimate import estimated
from cad_exp.evaluation.intervals.formulas import LEVEL, Bounds, Fourfold, Interval, student, wilson
from cad_exp.evaluation.intervals.images import Share


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
        both, only_before, only_after = map(float, cells)
        return Fourfold(both, only_before, only_after, _alike([t.n for t in tables])).change()


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
        found = [limit for limit in limits if limit is not None]
        if len(found) < len(limits):
            return None
        return max(low for low, _ in found), max(high for _, high in found)

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
        found = [limit for limit in limits if limit is not None]
        if len(found) < len(limits):
            return value, None, None
        return value, min(low for low, _ in found), max(high for _, high in found)


def _alike(sizes: Sequence[float]) -> float:
    """How many images of one label tell the mean over labels as well as so many of each."""
    return len(sizes) ** 2 / float(np.sum(1 / np.asarray(sizes)))


def _each(groups: int) -> float:
    """Return the level at which each of so many intervals is taken so that all hold at LEVEL (Sidak)."""
    return float(LEVEL ** (1 / groups))
