"""The picture of an analysis: its views below one another, each a heat map, lines, bars or a grid of images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from cad_exp.evaluation.analyses.views import Bars, Lines, Matrix, Pictures, View
from cad_exp.reporting.figures.canvas import HELPS, INK, OKABE_ITO, PALE, SIGNED, canvas, on, save
from cad_exp.reporting.figures.lettering import wrapped

WIDTH, HEAD, TITLE, FOOT = 9.0, 0.6, 0.62, 0.55  # inches: the page, its head, above and below a view
CELL, ROW, LINES, PICTURE = 0.3, 0.24, 2.4, 0.8
NAMES = 2.3  # inches for the names of rows
LETTER = 0.03  # inches that a letter of a turned name reaches down
PLAIN = LinearSegmentedColormap.from_list("plain", ["#f8f8f7", "#f5b08a", HELPS])
MOST = 20  # columns whose cells are lettered


def draw(views: Sequence[View], path: Path | str, title: str = "") -> Path:
    """Draw all views of an analysis on one page; returns `path` (PNG)."""
    heights = [_height(view) + TITLE + _foot(view) for view in views]
    height = HEAD + sum(heights)
    figure = canvas(WIDTH, height)
    figure.text(0.15 / WIDTH, 1 - 0.14 / height, title, fontsize=13, fontweight="bold", color=INK, va="top")
    top = height - HEAD
    for view, own in zip(views, heights, strict=True):
        _view(figure, view, top, own, height)
        top -= own
    return save(figure, path)


def _height(view: View) -> float:
    if isinstance(view, Matrix):
        return max(ROW, CELL if len(view.columns) <= MOST else ROW) * len(view.rows)
    if isinstance(view, Bars):
        return ROW * len(view.rows) + 0.2
    return _tile(view) * len(view.rows) if isinstance(view, Pictures) else LINES


def _foot(view: View) -> float:
    """Return the inches below a view: turned names of columns take more, the longer they are."""
    if not isinstance(view, Matrix):
        return FOOT
    return max(FOOT, 0.3 + LETTER * max(map(len, map(str, view.columns)), default=0))


def _tile(view: Pictures) -> float:
    """Return the width of one image in inches."""
    return min(PICTURE, (WIDTH - NAMES - 0.3) / len(view.columns))


def _view(figure: Figure, view: View, top: float, own: float, height: float) -> None:
    title = wrapped(view.title, int(11 * WIDTH), 1)
    figure.text(0.15 / WIDTH, (top - 0.02) / height, title, fontsize=10, color=INK, va="top", fontweight="bold")
    if view.note:
        text = wrapped(view.note, int(13 * WIDTH), 1)
        figure.text(0.15 / WIDTH, (top - 0.21) / height, text, fontsize=8, color=PALE, va="top")
    bottom, tall = top - own + _foot(view), own - TITLE - _foot(view)
    if isinstance(view, Pictures):
        _pictures(figure, view, bottom, height)
        return
    box = (NAMES / WIDTH, bottom / height, (WIDTH - NAMES - 0.3) / WIDTH, tall / height)
    axes = figure.add_axes(box)
    if isinstance(view, Matrix):
        _matrix(axes, view)
    elif isinstance(view, Bars):
        _bars(axes, view)
    else:
        _lines(axes, view)


def _matrix(axes: Axes, view: Matrix) -> None:
    known = view.values[np.isfinite(view.values)]
    most = float(np.abs(known).max()) if known.size else 1.0
    limits = (-most, most) if view.signed else (float(min(known.min(), 0.0)) if known.size else 0.0, most)
    colours = SIGNED if view.signed else PLAIN
    axes.imshow(view.values, cmap=colours, vmin=limits[0], vmax=limits[1], aspect="auto", interpolation="nearest")
    turned = max(map(len, map(str, view.columns)), default=0) > 5
    axes.set_xticks(range(len(view.columns)), [str(each) for each in view.columns], fontsize=7.5)
    if turned:
        for tick in axes.get_xticklabels():
            tick.set(rotation=30, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(view.rows)), [wrapped(str(each), 34, 1) for each in view.rows], fontsize=8)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    if len(view.columns) > MOST:
        return
    form = "{:.0f}" if most >= 100 else "{:.1f}" if most >= 10 else "{:.2f}"
    for (row, column), value in np.ndenumerate(view.values):
        if np.isfinite(value):
            colour = on(colours((value - limits[0]) / max(limits[1] - limits[0], 1e-12)))
            axes.text(column, row, form.format(value), ha="center", va="center", fontsize=7, color=colour)


def _lines(axes: Axes, view: Lines) -> None:
    words = not all(isinstance(each, (int, float)) for each in view.x)
    x = np.arange(len(view.x)) if words else np.array(view.x, float)
    for number, name in enumerate(view.series):
        colour = OKABE_ITO[number % len(OKABE_ITO)]
        axes.plot(x, view.values[number], "o-", color=colour, linewidth=1.8, markersize=3.5, label=name)
        axes.fill_between(x, view.low[number], view.high[number], color=colour, alpha=0.15, linewidth=0)
    if words:
        axes.set_xticks(x, [str(each) for each in view.x], fontsize=8)
    axes.set_xlabel(view.x_name, fontsize=8.5, color=INK)
    axes.legend(fontsize=8, frameon=False)
    _plain(axes)


def _bars(axes: Axes, view: Bars) -> None:
    for row, value in enumerate(view.values):
        axes.plot(value, row, "o", color=HELPS, markersize=5)
        if np.isfinite(view.low[row]) and np.isfinite(view.high[row]):
            axes.plot([view.low[row], view.high[row]], [row, row], color=HELPS, linewidth=1.6)
        axes.annotate(
            f"{value:.2f}", (value, row), (0, 4), textcoords="offset points", ha="center", fontsize=7, color=INK
        )
    if view.chance is not None:
        axes.axvline(view.chance, color="#9ca3af", linewidth=1)
    axes.set_ylim(len(view.rows) - 0.5, -0.7)
    axes.set_yticks(range(len(view.rows)), [wrapped(str(each), 34, 1) for each in view.rows], fontsize=8)
    _plain(axes)


def _pictures(figure: Figure, view: Pictures, bottom: float, height: float) -> None:
    side = _tile(view)
    for row, name in enumerate(view.rows):
        for column, head in enumerate(view.columns):
            low = bottom + side * (len(view.rows) - 1 - row)
            box = ((NAMES + side * column) / WIDTH, low / height, 0.95 * side / WIDTH, 0.95 * side / height)
            axes = figure.add_axes(box)
            axes.imshow(view.images[row, column], interpolation="nearest")
            axes.set_axis_off()
            if row == len(view.rows) - 1:
                axes.text(0.5, -0.05, str(head), transform=axes.transAxes, ha="center", va="top", fontsize=7.5)
            if column == 0:
                text = wrapped(str(name), 34, 2)
                axes.text(-0.08, 0.5, text, transform=axes.transAxes, ha="right", va="center", fontsize=8)


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#d1d5db")
    axes.tick_params(length=2, labelsize=8, colors=INK)
    axes.grid(axis="x", color="#f3f4f6")
    axes.set_axisbelow(True)
