"""What all pictures have in common: colours, canvas, and how a file is written.

matplotlib's object interface with the Agg canvas: no window, no global state, the same on every machine.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.figure import Figure

from cad_exp.reporting.figures.lettering import letter
from cad_exp.utils.io import atomic

HELPS, SUPPRESSES = "#c2410c", "#1d4ed8"
KIND_COLOURS = {
    "self-attention": "#7c3aed",
    "cross-attention": "#0f766e",
    "joint-attention": "#0369a1",
    "feed-forward": "#a16207",
    "feed-forward-in": "#4d7c0f",
    "text-attention": "#be185d",
    "text-feed-forward": "#7f1d1d",
}
# Told apart by colour-blind readers too: Okabe and Ito, Color Universal Design (2008); yellow, pale on white, is last.
OKABE_ITO = ("#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#000000", "#f0e442")
INK, PALE = "#1f2937", "#6b7280"
SIGNED = LinearSegmentedColormap.from_list("signed", [SUPPRESSES, "#93b4f5", "#f8f8f7", "#f5b08a", HELPS])
DPI = 130


def canvas(width: float, height: float) -> Figure:
    """Make an empty white figure of this size in inches."""
    figure = Figure(figsize=(width, height), facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def save(figure: Figure, path: Path | str) -> Path:
    """Write a figure as PNG, whole or not at all; returns `path`."""
    letter(figure)
    with atomic(path) as temporary:
        figure.savefig(temporary, dpi=DPI, format="png")
    return Path(path)


def on(colour: Sequence[float]) -> str:
    """Return white or ink, whichever is read better on this ground. colour: its red, green and blue, in 0..1.

    The ratio of contrast is that of WCAG 2.2 (https://www.w3.org/TR/WCAG22/#dfn-contrast-ratio).
    """
    ground, ink = luminance(colour[:3]), luminance(to_rgb(INK))
    return "white" if 1.05 / (ground + 0.05) > (ground + 0.05) / (ink + 0.05) else INK


def luminance(colour: Sequence[float]) -> float:
    """Return the relative luminance of an sRGB colour, 0 for black and 1 for white (WCAG 2.2)."""
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in colour]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def percent(value: float) -> str:
    """Write a percentage without decimals, in one piece that no line break parts."""
    return "under\u00a01\u00a0%" if 0 < value < 0.5 else f"{value:.0f}\u00a0%"


def separate(axes: Axes, parts: Sequence[str]) -> None:
    """Draw thin lines where the part of the network changes, and no frame. parts: one per row."""
    for row in range(1, len(parts)):
        if parts[row] != parts[row - 1]:
            axes.axhline(row - 0.5, color=PALE, linewidth=0.8, linestyle=(0, (4, 3)))
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(length=0, labelsize=8.5)


def name_rows(axes: Axes, names: Sequence[str], kinds: Sequence[str], **look: Any) -> None:
    """Label one row per layer, in the colour of its kind of module."""
    axes.set_yticks(range(len(names)), [f"{name}  {kind}" for name, kind in zip(names, kinds, strict=True)], **look)
    for tick, kind in zip(axes.get_yticklabels(), kinds, strict=True):
        tick.set_color(KIND_COLOURS.get(kind, INK))
