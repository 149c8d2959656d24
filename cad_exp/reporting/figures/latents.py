"""The picture of single latents: the held-out images in which each acts most, and where in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap

from cad_exp.reporting.figures.canvas import HELPS, INK, PALE, canvas, percent, save
from cad_exp.reporting.figures.lettering import wrapped

SIDE, GAP, NAMES = 0.92, 0.07, 2.15  # inches
ACTS = LinearSegmentedColormap.from_list("acts", [(1, 1, 1, 0), (0.76, 0.25, 0.05, 0.75)])


@dataclass(frozen=True)
class Latent:
    """One latent. kind: why it is shown. images: (H, W, 3) uint8, the strongest first; maps: (side, side), NaN unread.

    says: the most frequent class of these images. frequency: share of held-out images in which it acts.
    """

    number: int
    kind: str
    images: Sequence[np.ndarray]
    maps: Sequence[np.ndarray]
    says: str
    frequency: float


def latents(shown: Sequence[Latent], path: Path | str, title: str = "") -> Path:
    """Draw one row for each latent; returns `path` (PNG).

    Orange covers the positions at which the latent acts, averaged over timesteps; each row has its own scale.
    """
    columns = max((len(each.images) for each in shown), default=1)
    width, height = NAMES + columns * (SIDE + GAP) + 0.15, 0.95 + max(1, len(shown)) * (SIDE + GAP)
    figure = canvas(width, height)
    for row, each in enumerate(shown):
        bottom = height - 0.8 - (row + 1) * (SIDE + GAP) + GAP
        words = f"{each.kind}\n{each.says}\nlatent {each.number}, in {percent(100 * each.frequency)} of images"
        figure.text(0.15 / width, (bottom + SIDE / 2) / height, words, fontsize=8.2, color=INK, va="center")
        most = strength(each.maps)
        for column, (image, values) in enumerate(zip(each.images, each.maps, strict=True)):
            left = NAMES + column * (SIDE + GAP)
            axes = figure.add_axes((left / width, bottom / height, SIDE / width, SIDE / height))
            cover(axes, image, values, most)
    if not shown:
        figure.text(0.5, 0.4, "no latent acts in enough images", color=PALE, ha="center", fontsize=10)
    text = wrapped(title or "What latents act on", int(9 * width), 1)
    figure.text(0.15 / width, 1 - 0.14 / height, text, fontsize=13, fontweight="bold", color=INK, va="top")
    under = "held-out images in which a latent acts most, the strongest first; orange: where it acts"
    figure.text(0.15 / width, 1 - 0.45 / height, under, fontsize=8.8, color=PALE, va="top")
    return save(figure, path)


def strength(maps: Sequence[np.ndarray]) -> float:
    """Return the scale of a latent's maps: the median of their peaks, 0 where nothing was read."""
    peaks = [float(np.nanmax(values)) for values in maps if np.isfinite(values).any()]
    return float(np.median(peaks)) if peaks else 0.0


def cover(axes: Axes, image: np.ndarray, values: np.ndarray, most: float) -> None:
    """Draw an image (H, W, 3) uint8, and over it where a latent acts: values (side, side) on the scale 0 to `most`."""
    height, width = image.shape[:2]
    axes.imshow(image, interpolation="nearest")
    if most > 0:
        extent = (-0.5, width - 0.5, height - 0.5, -0.5)
        shown = np.sqrt(np.nan_to_num(values) * most)  # weak acting is seen too
        axes.imshow(shown, cmap=ACTS, vmin=0, vmax=most, extent=extent, interpolation="bilinear")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_color(HELPS if most > 0 else PALE)
    axes.spines[:].set_linewidth(0.4)
