"""Estimates of one number per image: a share, a mean, a sum of counts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from cad_exp.evaluation.intervals.estimate import estimated
from cad_exp.evaluation.intervals.formulas import Bounds, Fourfold, Interval, garwood, student, wilson


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
        """Return what rose less what fell, each a count; as in McNemar's test only images that differ count."""
        steps = np.asarray(self.values, float) - np.asarray(before.values, float)
        rose, fell = float(steps[steps > 0].sum()), float(-steps[steps < 0].sum())
        (low_r, high_r), (low_f, high_f) = garwood(rose), garwood(fell)
        value = rose - fell
        counted = value - math.hypot(rose - low_r, high_f - fell), value + math.hypot(high_r - rose, fell - low_f)
        return (value, *_wider(counted, student(steps), len(steps)))


def _wider(counted: Bounds, spread: Bounds | None, n: int) -> Bounds:
    """Return the union of two intervals of a sum, the second of them given for the mean of n."""
    if spread is None:
        return counted
    return min(counted[0], n * spread[0]), max(counted[1], n * spread[1])
