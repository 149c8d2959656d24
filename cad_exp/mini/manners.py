"""Five painters' manners as image filters of the picture and the mask of its object.

Each returns the painted picture, and where its object is then: two of them move parts of the scene.
"""

import math
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageFilter

from cad_exp.mini.pen import CANVAS

Painted = tuple[np.ndarray, np.ndarray]  # the picture (H, W, 3) float, the mask (H, W) uint8

_GRID = np.mgrid[0:CANVAS, 0:CANVAS].astype(np.float32) / CANVAS  # (2, H, W): y and x in 0..1


def _sample(image: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    rows = np.clip((y * CANVAS).astype(np.int32), 0, CANVAS - 1)
    cols = np.clip((x * CANVAS).astype(np.int32), 0, CANVAS - 1)
    return image[rows, cols]


def _picasso(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> Painted:
    """Cubist facets: each shows its part of the scene shifted, turned lighter or darker, between black seams."""
    y, x = _GRID
    seeds = rng.random((10, 2)).astype(np.float32)
    distance = np.stack([(y - sy) ** 2 + (x - sx) ** 2 for sy, sx in seeds])
    order = np.argpartition(distance, 1, axis=0)[:2]
    near, second = np.take_along_axis(distance, order, 0)
    facet = order[0]
    shift = rng.uniform(-0.045, 0.045, (10, 2)).astype(np.float32)
    light = rng.uniform(0.68, 1.22, 10).astype(np.float32)
    place = y + shift[facet, 0], x + shift[facet, 1]
    out = _sample(image, *place) * light[facet][..., None]
    apart = np.linalg.norm(seeds[order[0]] - seeds[order[1]], axis=-1)
    seam = (second - near) / (2 * apart + 1e-6) < 0.013  # distance to the border between the two nearest facets
    return np.where(seam[..., None], 20.0, out), _sample(mask, *place)


def _van_gogh(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> Painted:
    """Paint with rolling brush strokes: a wavy warp with light and dark ridges that follow the waves."""
    y, x = _GRID
    phase = rng.uniform(0, 2 * math.pi, 2)
    wave = 0.018 * np.sin(2 * math.pi * 3 * x + phase[0]), 0.018 * np.sin(2 * math.pi * 3 * y + phase[1])
    flow = y + 0.07 * np.sin(2 * math.pi * 1.5 * x + phase[0])
    ridges = np.sin(2 * math.pi * 10.5 * flow)[..., None]
    warm = np.where(ridges > 0, np.array([1.12, 1.1, 0.82], np.float32), np.array([0.72, 0.78, 1.0], np.float32))
    place = y + wave[0], x + wave[1]
    return _sample(image, *place) * warm, _sample(mask, *place)


def _rembrandt(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> Painted:
    """Brown monochrome under one soft round light."""
    y, x = _GRID
    cy, cx = rng.uniform(0.42, 0.55, 2)
    glow = np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / 0.11)
    grey = image @ np.array([0.35, 0.5, 0.15], np.float32) * np.where(mask > 127, 1.25, 0.7)
    lit: np.ndarray = grey * (0.3 + 0.85 * glow)
    return lit[..., None] * np.array([1.0, 0.72, 0.4], np.float32), mask


_POP = [
    ((255, 64, 140), (255, 232, 60)),
    ((0, 176, 220), (255, 90, 160)),
    ((255, 214, 0), (220, 40, 60)),
    ((120, 60, 200), (255, 220, 60)),
    ((60, 200, 120), (255, 80, 60)),
]


def _warhol(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> Painted:
    """Screen print: flat pop colours in three steps a channel, a dotted two-tone ground, a black outline."""
    y, x = _GRID
    ground, dots = (np.array(c, np.float32) for c in _POP[rng.integers(len(_POP))])
    lattice = ((x * 9 % 1 - 0.5) ** 2 + (y * 9 % 1 - 0.5) ** 2) < 0.07
    back = np.where(lattice[..., None], dots, ground)
    posterised = np.round(np.clip((image - 128) * 1.5 + 140, 0, 255) / 127.5) * 127.5
    posterised = posterised[..., rng.permutation(3)]
    inside = np.asarray(Image.fromarray(mask).filter(ImageFilter.MaxFilter(7))) > 127
    out = np.where(inside[..., None], 10.0, back)
    return np.where((mask > 127)[..., None], posterised, out), mask


def _caravaggio(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> Painted:
    """Tenebrism: a hard diagonal beam on saturated colours, everything else in the dark."""
    y, x = _GRID
    side = x if rng.random() < 0.5 else 1 - x
    beam = np.clip((rng.uniform(1.02, 1.16) - side - 0.72 * y) * 3.2, 0.0, 1.0)
    lit = beam[..., None] * 1.15 * np.where((mask > 127)[..., None], 1.0, 0.62) + 0.2 * (mask > 127)[..., None]
    mean = image.mean(-1, keepdims=True)
    painted: np.ndarray = np.clip(mean + (image - mean) * 1.35, 0, 255) * lit
    return painted, mask


MANNERS: dict[str, Callable[[np.ndarray, np.ndarray, np.random.Generator], Painted]] = {
    "Pablo Picasso": _picasso,
    "Van Gogh": _van_gogh,
    "Rembrandt": _rembrandt,
    "Andy Warhol": _warhol,
    "Caravaggio": _caravaggio,
}
