"""Pictures of fidelity: predicted against true effects, and J while all is removed in the order of the scores."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.colors import LinearSegmentedColormap, to_hex
from matplotlib.lines import Line2D

from .agreement import agreement
from .figures import HELPS, INK, PALE, SUPPRESSES, _canvas, _save
from .image_game import MEASURES
from .lettering import wrapped

GRID = "#e5e7eb"
RATES = LinearSegmentedColormap.from_list("rates", ["#f59e0b", HELPS, "#be185d", "#7c3aed", SUPPRESSES])
KIND_TITLES = {
    "uniform": "random components",
    "top": "random ones among the top-scored",
    "single": "one component at a time",
}
Measure = tuple[str, float, str]  # as the records call it, its value for the intact model, as people call it
J: Measure = ("J", 0.0, "change of J")
ORDER_STYLES = {
    "most": ("most helpful first", HELPS),
    "least": ("most suppressing first", SUPPRESSES),
    "random": ("in random order", PALE),
}


def scatter(records: pd.DataFrame, path: Path | str, title: str = "", measure: str = "J") -> Path:
    """Draw predicted against true change of a measure, a panel per kind of ablation, a colour per rate; returns `path`.

    records: those of `fidelity.ablation_fidelity` with the column `measure` (others are left out). On the dashed line
    every prediction is true; there is none where the measure is not what the scores predict.
    """
    rows = records[(records["study"] == "ablations") & (records["measure"] == measure)]
    kinds, rates = list(rows["kind"].unique()), sorted(rows["rate"].unique())
    colours = {rate: to_hex(RATES(i / max(1, len(rates) - 1))) for i, rate in enumerate(rates)}
    figure = _canvas(1.2 + 5.2 * max(1, len(kinds)), 5.9)
    panels = figure.subplots(1, max(1, len(kinds)), squeeze=False)[0]
    figure.subplots_adjust(left=0.9 / figure.get_figwidth(), right=0.98, top=0.82, bottom=0.12, wspace=0.22)
    for axes, kind in zip(panels, kinds, strict=False):
        _scatter_panel(axes, rows[rows["kind"] == kind], colours, line=measure == "J")
        axes.set_title(f"ablated: {KIND_TITLES.get(kind, kind)}", fontsize=10, color=INK, loc="left")
    panels[0].set_ylabel(f"true change of {MEASURES.get(measure, measure)}", fontsize=9.5, color=INK)
    what = "Each dot is one set of components that was switched off. "
    what += "Scores that can be trusted put " + ("it on the line." if measure == "J" else "them on a rising line.")
    _title(figure, title or "Predicted and true effect of ablations", what)
    return _save(figure, path)


def _scatter_panel(axes: Any, rows: pd.DataFrame, colours: dict[float, str], line: bool) -> None:
    keys = []
    # Small effects are drawn last: the large ones of high rates would cover them.
    for rate in sorted(rows["rate"].unique(), reverse=True):
        own = rows[rows["rate"] == rate]
        axes.scatter(own["predicted"], own["true"], s=13, color=colours[rate], alpha=0.55, linewidths=0)
        keys.append(Line2D([], [], marker="o", linestyle="", color=colours[rate], label=_said(rate, own)))
    both = np.concatenate([rows["predicted"], rows["true"], [0.0]])
    ends, same = [both.min(), both.max()], []
    if line:
        same = axes.plot(ends, ends, color=INK, linewidth=1, linestyle=(0, (5, 3)), label="true = predicted")
    legend = axes.legend(
        handles=[*reversed(keys), *same],
        title="ablated: Pearson, slope",
        fontsize=8.5,
        title_fontsize=8.5,
        loc="upper left",
    )
    legend.get_frame().set(edgecolor="none", alpha=0.85)
    legend.set_alignment("left")
    axes.set_xlabel("predicted change of J: minus the sum of the scores", fontsize=9.5, color=INK)
    _frame(axes)


def _said(rate: float, rows: pd.DataFrame) -> str:
    found = agreement(rows["predicted"], rows["true"], resamples=0)
    pearson, slope = ("-" if found[name] is None else f"{found[name][0]:.2f}" for name in ("pearson", "slope"))
    return f"{100 * rate:.3g} %: r = {pearson}, slope {slope}"


def curves(records: pd.DataFrame, path: Path | str, title: str = "", measures: Sequence[Measure] = (J,)) -> Path:
    """Draw each measure against the share of components removed, one line per order; returns `path` (PNG).

    records: those of `fidelity.ordered_curves` with the column `measure` (others are left out). The random orders are
    their mean and the band from the lowest to the highest of them.
    """
    figure = _canvas(1.2 + 6.6 * len(measures), 5.4)
    panels, width = figure.subplots(1, len(measures), squeeze=False)[0], figure.get_figwidth()
    figure.subplots_adjust(left=0.8 / width, right=1 - 0.25 / width, top=0.82, bottom=0.12, wspace=0.2)
    for axes, (name, intact, label) in zip(panels, measures, strict=True):
        _curves_panel(axes, records[(records["study"] == "curve") & (records["measure"] == name)], intact, label)
    what = "While components are switched off one after the other, in the order of their scores."
    _title(figure, title or "Removing everything, in order", what)
    return _save(figure, path)


def _curves_panel(axes: Any, rows: pd.DataFrame, intact: float, label: str) -> None:
    for order, (name, colour) in ORDER_STYLES.items():
        own = rows[rows["kind"] == order]
        if len(own) == 0:
            continue
        by_rate = intact + own.groupby("rate")["true"].agg(["mean", "min", "max"])
        style = {"linestyle": (0, (5, 3))} if order == "random" else {"marker": "o", "markersize": 4}
        axes.plot(by_rate.index, by_rate["mean"], color=colour, linewidth=2, label=name, **style)
        if own["draw"].nunique() > 1:
            axes.fill_between(by_rate.index, by_rate["min"], by_rate["max"], color=colour, alpha=0.18, linewidth=0)
    axes.axhline(intact, color=INK, linewidth=0.8)
    axes.annotate("intact", (1, intact), (0, 3), textcoords="offset points", ha="right", fontsize=8.5, color=INK)
    axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:g} %")
    axes.set_xlim(-0.01, 1.01 * max([*rows["rate"], 0.01]))
    axes.set_xlabel("components removed", fontsize=9.5, color=INK)
    axes.set_ylabel(label, fontsize=9.5, color=INK)
    axes.legend(frameon=False, fontsize=9, loc="best")
    _frame(axes)


def _frame(axes: Any) -> None:
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8.5, length=2)


def _title(figure: Any, title: str, text: str) -> None:
    height, width = figure.get_size_inches()[::-1]
    title = wrapped(title, int(8 * width), 1)
    figure.text(0.15 / width, 1 - 0.14 / height, title, fontsize=14, fontweight="bold", color=INK, va="top")
    figure.text(0.15 / width, 1 - 0.47 / height, text, fontsize=8.8, color=PALE, va="top")
