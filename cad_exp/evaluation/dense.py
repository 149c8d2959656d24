"""Linear classifiers of positions: which class each position of an image shows, and how well that meets the true mask.

1. Every position is a row: ridge regression onto background and classes. Its own place is among its features, so that
   what objects in the middle tell is given to all.
2. The values are enlarged to pixels, and a pixel has the class with the largest.
3. A bias of the background is chosen on validation images by the overlap; test images are only shown.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cad_exp.evaluation.masks import best_threshold, enlarged, overlaps
from cad_exp.representations.probes import linear
from cad_exp.representations.probes.base import Split

BIASES = tuple(round(0.05 * step, 2) for step in range(-12, 13))


@dataclass(frozen=True)
class Segmented:
    """Test images. masks: (n, H, W), where they are said to show their class; overlap: (n,) with the true ones.

    ceiling: the mean overlap that the true masks have, told at the same positions only.
    """

    overlap: np.ndarray
    masks: np.ndarray
    ceiling: float


def segmented(features: np.ndarray, y: np.ndarray, masks: np.ndarray, split: Split) -> Segmented:
    """Fit on the training images, and say where the test images show their class.

    Args:
        features: (N, side^2, F) by position; (N, side^2, 0) leaves the place alone.
        y: (N,) the class of each image's object, from 0; a class without training image is never said.
        masks: (N, H, W) bool, where the object is.
        split: of the images.
    """
    count, places = features.shape[:2]
    side, kept = int(round(places**0.5)), np.unique(y[split.train])
    number = np.full(int(y.max()) + 1, len(kept) + 1)  # 0: background; last: never said
    number[kept] = np.arange(1, len(kept) + 1)
    covered = _cells(masks, side) > 0.5
    classes = np.where(covered, number[y][:, None], 0)
    seen = split.validation[np.isin(y[split.validation], kept)]
    placed = np.concatenate([features, np.broadcast_to(np.eye(places, dtype=np.float32), (count, places, places))], 2)
    fitted = _fit(placed, classes, Split(split.train, seen, split.test))

    def values(rows: np.ndarray) -> np.ndarray:
        by_place = fitted.values(placed[rows].reshape(len(rows) * places, -1)).reshape(len(rows), side, side, -1)
        return np.stack([enlarged(each, masks.shape[1:]) for each in np.moveaxis(by_place, -1, 0)], 1)

    def said(found: np.ndarray, rows: np.ndarray, bias: float) -> np.ndarray:
        moved = found - np.eye(1, found.shape[1])[0][:, None, None] * bias  # of the background alone
        own: np.ndarray = moved.argmax(1) == number[y[rows]][:, None, None]
        return own

    chosen = values(seen)
    met = [overlaps(said(chosen, seen, bias), masks[seen]).mean() if len(seen) else 0.0 for bias in BIASES]
    shown = said(values(split.test), split.test, BIASES[int(np.argmax(met))])
    return Segmented(overlaps(shown, masks[split.test]), shown, _ceiling(masks, side, split))


def _ceiling(masks: np.ndarray, side: int, split: Split) -> float:
    """Return the mean overlap of the true masks at side x side positions, with a threshold of the validation images."""
    cells = enlarged(_cells(masks, side).reshape(-1, side, side), masks.shape[1:])
    threshold = best_threshold(cells[split.validation], masks[split.validation])
    return float(overlaps(cells[split.test] > threshold, masks[split.test]).mean())


def _fit(placed: np.ndarray, classes: np.ndarray, split: Split) -> linear.Linear:
    """Fit a linear classifier of positions; every position counts alike, for most are background."""
    parts = (split.train, split.validation)
    x = np.concatenate([placed[part].reshape(-1, placed.shape[2]) for part in parts])
    y = np.concatenate([classes[part].ravel() for part in parts])
    first = len(split.train) * classes.shape[1]
    rows = Split(np.arange(first), np.arange(first, len(x)), np.arange(0))
    return linear.fit(x, y, rows, balanced=False)


def _cells(masks: np.ndarray, side: int) -> np.ndarray:
    """Return (N, side^2), the share of each cell that the mask covers."""
    import torch
    import torch.nn.functional as F

    found: np.ndarray = F.adaptive_avg_pool2d(torch.from_numpy(masks).float()[:, None], side).flatten(1).numpy()
    return found
