"""The formulas behind the intervals: of a share, a mean, a count, and a paired change of a share."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats

Bounds = tuple[float, float]
Bounded = tuple[float, float, float]  # value, low, high
Interval = tuple[float, float | None, float | None]  # the same, where the ends may not be known
LEVEL = 0.95


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


def garwood(count: float, level: float = LEVEL) -> Bounds:
    """Return the exact limits of a Poisson count (F. Garwood, Biometrika 28, 1936): of 0 up to 3.69."""
    tail = (1 - level) / 2
    low = float(stats.chi2.ppf(tail, 2 * count)) / 2 if count > 0 else 0.0
    return low, float(stats.chi2.isf(tail, 2 * (count + 1))) / 2


@dataclass(frozen=True)
class Fourfold:
    """How often pairs hold what is asked for: shares in both images, only before, only after; n pairs."""

    both: float
    only_before: float
    only_after: float
    n: float

    @classmethod
    def of(cls, before: np.ndarray, after: np.ndarray) -> Fourfold:
        """Count pairs of 0 and 1, image by image."""
        a, b = np.asarray(before, bool), np.asarray(after, bool)
        both, only_before, only_after = (float(np.mean(x)) for x in (a & b, a & ~b, ~a & b))
        return cls(both, only_before, only_after, len(a))

    def change(self, level: float = LEVEL) -> Bounded:
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
