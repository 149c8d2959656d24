"""F1: the threshold that makes it best, and its interval.

F1 = 2 J / (1 + J), where J = TP / (TP + FP + FN) is the share of the images that are of the class, or said to be, that
are both. J is a share, so it has Wilson's interval, and F1 the same, mapped. It does not collapse at 0 or 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from cad_exp.evaluation.intervals.formulas import Bounds, Interval, wilson


@dataclass(frozen=True)
class F1s:
    """The mean over classes of F1 on test images, every class weighing alike.

    hits, wrong, missed: (C,) images of a class that are found, others that are said to be of it, images not found.
    The mean is taken for one F1 of as many images as tell it equally well, as `intervals.labels.Shares` does.
    """

    hits: np.ndarray
    wrong: np.ndarray
    missed: np.ndarray
    words: ClassVar[str] = "95 % Wilson interval of the Jaccard index, mapped to F1, every class weighing alike"
    change_words: ClassVar[str] = "95 %, square-and-add of both intervals, as if on different images (conservative)"

    @classmethod
    def of(cls, said: np.ndarray, true: np.ndarray) -> F1s:
        """Count images by said and true membership, both (images, C) bool."""
        return cls((said & true).sum(0), (said & ~true).sum(0), (~said & true).sum(0))

    @property
    def each(self) -> np.ndarray:
        """F1 of each class, (C,)."""
        return _ratio(2 * self.hits, 2 * self.hits + self.wrong + self.missed)

    @property
    def precision(self) -> np.ndarray:
        """Share of the images said to be of each class that are, (C,); 0 where none is said to be."""
        return _ratio(self.hits, self.hits + self.wrong)

    @property
    def recall(self) -> np.ndarray:
        """Share of the images of each class that are found, (C,)."""
        return _ratio(self.hits, self.hits + self.missed)

    @property
    def value(self) -> float:
        """The mean over classes."""
        return float(self.each.mean())

    def interval(self) -> Bounds:
        """Return (low, high)."""
        union = np.maximum(self.hits + self.wrong + self.missed, 1)
        low, high = wilson(self.value / (2 - self.value), len(union) ** 2 / float((1 / union).sum()))
        return 2 * low / (1 + low), 2 * high / (1 + high)

    def change(self, before: F1s) -> Interval:
        """Return the difference to another dictionary; the images may be others."""
        (low, high), (low_b, high_b) = self.interval(), before.interval()
        value = self.value - before.value
        down, up = (
            math.hypot(self.value - low, high_b - before.value),
            math.hypot(high - self.value, before.value - low_b),
        )
        return value, value - down, value + up


def best_cut(
    values: np.ndarray, positive: np.ndarray, total: np.ndarray, floor: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return for each class the threshold above which F1 is best; of equals the highest.

    Args:
        values: (m,) of the images that may be said to be of a class; all others are said not to be.
        positive: (m, C) bool, which of them are.
        total: (C,) how many images of each class there are, among all images.
        floor: the next value below all of `values`.

    Returns:
        Thresholds (C,), half way between two values that differ; F1 (C,); and how far apart these values lie (C,).
    """
    order = np.argsort(-values, kind="stable")
    ordered, below = values[order], np.append(values[order][1:], floor)
    found = 2 * positive[order].cumsum(0) / (np.arange(1, len(values) + 1)[:, None] + total)
    found[ordered == below] = -1.0  # equal values are not told apart
    best = found.argmax(0)
    return (ordered[best] + below[best]) / 2, found[best, np.arange(len(total))], (ordered - below)[best]


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    found: np.ndarray = part / np.maximum(whole, 1)
    return found
