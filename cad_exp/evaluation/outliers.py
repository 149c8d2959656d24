"""Images outside the world: those that no reference resembles, by the distance in the judge's features.

The distance of an image is that to its nearest reference, after the features were divided by their spread. An image is
outside when it lies farther than 99 % of the references lie from the others, so 1 % of good ones is called outside too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

QUANTILE = 0.99
FEWEST = 30  # images of the unedited model that are taken for its world
MOST = 2000  # of them that are compared with
ROWS = 512  # images compared at once


@dataclass(frozen=True)
class World:
    """References (M, F), their mean and spread (F,), and the distance beyond which an image is outside."""

    points: np.ndarray
    centre: np.ndarray
    spread: np.ndarray
    threshold: float

    @classmethod
    def of(cls, features: np.ndarray) -> World:
        """Build the world of features (M, F) of references, M at least 3.

        Each of them is held out once to set the threshold.
        """
        x = np.asarray(features, dtype=np.float64)
        centre, spread = x.mean(0), np.maximum(x.std(0), 1e-6)
        points = (x - centre) / spread
        held_out = _nearest(points, points, np.arange(len(x)))
        return cls(points, centre, spread, float(np.quantile(held_out, QUANTILE)))

    def outside(self, features: np.ndarray, own: np.ndarray | None = None) -> np.ndarray:
        """Return whether images with features (N, F) are outside: (N,) bool.

        own (N,): of each the reference not to look at, -1 for none.
        """
        return (
            _nearest((np.asarray(features, np.float64) - self.centre) / self.spread, self.points, own) > self.threshold
        )


def spread(number: int) -> np.ndarray:
    """Return the indices of at most MOST of so many images, spread evenly."""
    return np.unique(np.linspace(0, number - 1, min(number, MOST)).round().astype(int))


def _nearest(x: np.ndarray, points: np.ndarray, own: np.ndarray | None) -> np.ndarray:
    """Return the distance (N,) of each x (N, F) to the nearest of the points (M, F), apart from its own."""
    found = np.empty(len(x))
    for start in range(0, len(x), ROWS):
        part = x[start : start + ROWS]
        squares = (part**2).sum(1)[:, None] + (points**2).sum(1) - 2 * part @ points.T
        if own is not None:
            rows = np.flatnonzero(own[start : start + ROWS] >= 0)
            squares[rows, own[start : start + ROWS][rows]] = np.inf
        found[start : start + len(part)] = np.sqrt(squares.min(1).clip(0))
    return found
