"""The picture of what an edit did: the same prompts and seeds by the model as it was, edited, and edited at random."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cad_exp.reporting.figures.canvas import INK, PALE, canvas, save
from cad_exp.reporting.figures.lettering import wrapped

VARIANT_TITLES = {"unedited": "unedited model", "edited": "edited", "random": "random edit of equal budget"}


def before_after(images: dict[str, dict[str, np.ndarray]], path: Path | str, title: str = "") -> Path:
    """Draw one row per prompt and one block of columns per variant, seeds in equal places; returns `path` (PNG).

    `images`: variant -> prompt -> uint8 array (k, H, W, 3). Small pictures are enlarged by whole factors, unsmoothed.
    A prompt or a picture that a variant lacks stays empty.
    """
    variants = list(images)
    prompts = list(dict.fromkeys(prompt for by_prompt in images.values() for prompt in by_prompt))
    columns = max(len(pictures) for by_prompt in images.values() for pictures in by_prompt.values())
    cell, gap, label, top = 0.92, 0.22, 1.55, 0.95  # inches
    block = columns * cell
    width = label + len(variants) * (block + gap)
    figure = canvas(width, top + len(prompts) * cell + 0.1)
    height = figure.get_figheight()
    figure.text(
        0.12 / width,
        1 - 0.12 / height,
        wrapped(title or "Before and after the edit", int(8 * width), 1),
        fontsize=13,
        fontweight="bold",
        color=INK,
        va="top",
    )
    figure.text(
        0.12 / width,
        1 - 0.4 / height,
        "Same prompts and same seeds in every block.",
        fontsize=8.8,
        color=PALE,
        va="top",
    )
    sheet = _sheet(figure)
    for number, variant in enumerate(variants):
        left = label + number * (block + gap)
        figure.text(
            (left + block / 2) / width,
            1 - (top - 0.08) / height,
            VARIANT_TITLES.get(variant, variant),
            ha="center",
            va="bottom",
            fontsize=10.5,
            color=INK,
            fontweight="bold" if variant == "edited" else "normal",
        )
        for row, prompt in enumerate(prompts):
            bottom = height - top - (row + 1) * cell
            for column, picture in enumerate(images[variant].get(prompt, ())):
                _place(sheet, enlarge(picture), left + column * cell, bottom, 0.96 * cell)
    for row, prompt in enumerate(prompts):
        middle = height - top - (row + 0.5) * cell
        figure.text(
            (label - 0.12) / width,
            middle / height,
            wrapped(prompt, 18, 5),
            ha="right",
            va="center",
            fontsize=9,
            color=INK,
        )
    return save(figure, path)


def _sheet(figure: Figure) -> Axes:
    """Lay axes in inches over the whole figure: axes for each picture would take most of the time."""
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, figure.get_figwidth()), ylim=(0, figure.get_figheight()))
    axes.set_axis_off()
    axes.set_autoscale_on(False)
    return axes


def _place(axes: Axes, picture: np.ndarray, left: float, bottom: float, cell: float) -> None:
    """Put a picture into the middle of a square cell, all in inches."""
    rows, columns = picture.shape[:2]
    height, width = (cell * size / max(rows, columns) for size in (rows, columns))
    left, bottom = left + (cell - width) / 2, bottom + (cell - height) / 2
    extent = (left, left + width, bottom, bottom + height)
    axes.imshow(picture, interpolation="antialiased", aspect="auto", extent=extent)


def enlarge(picture: np.ndarray, least: int = 128) -> np.ndarray:
    """Repeat the pixels of an (H, W, 3) picture by the smallest whole factor that gives at least `least` rows."""
    factor = max(1, -(-least // picture.shape[0]))
    return picture.repeat(factor, axis=0).repeat(factor, axis=1)
