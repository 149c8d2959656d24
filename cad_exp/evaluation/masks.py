"""How well a map finds an object: the pointing game, and the overlap with its true mask.

A map is any number per position; its height is compared within one image only. A threshold turns it into a mask. It is
chosen on some images and shown on others.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

THRESHOLDS = tuple(round(0.05 * step, 2) for step in range(1, 20))


def enlarged(maps: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return maps (N, h, w) bilinearly at another size (height, width) in pixels, fp32."""
    import torch
    import torch.nn.functional as F

    wide = torch.from_numpy(np.ascontiguousarray(maps, np.float32))[:, None]
    found: np.ndarray = F.interpolate(wide, size=size, mode="bilinear", align_corners=False)[:, 0].numpy()
    return found


def stretched(maps: np.ndarray) -> np.ndarray:
    """Return maps (N, H, W) with 0 for the lowest and 1 for the highest value of each; 0 where all are equal."""
    low, high = maps.min((1, 2), keepdims=True), maps.max((1, 2), keepdims=True)
    found: np.ndarray = (maps - low) / np.where(high > low, high - low, 1.0)
    return found


def pointed(maps: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Return (N,) 0 or 1: whether a map (N, H, W) is highest inside the mask (N, H, W) bool (arXiv 1608.00507)."""
    highest = maps.reshape(len(maps), -1).argmax(1)
    found: np.ndarray = masks.reshape(len(masks), -1)[np.arange(len(maps)), highest].astype(float)
    return found


def overlaps(said: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Return (N,) intersection over union of two masks (N, H, W) bool; 1 where both are empty."""
    both, either = (said & masks).sum((1, 2)), (said | masks).sum((1, 2))
    found: np.ndarray = np.where(either > 0, both / np.maximum(either, 1), 1.0)
    return found


def best_threshold(maps: np.ndarray, masks: np.ndarray, thresholds: Sequence[float] = THRESHOLDS) -> float:
    """Return the threshold of stretched maps (N, H, W) with the best mean overlap; of equals, the lowest."""
    found = [overlaps(maps > each, masks).mean() for each in thresholds]
    return float(thresholds[int(np.argmax(found))])
