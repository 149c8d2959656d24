"""Pictures of fidelity: predicted against true effects, and J while all is removed in the order of the scores."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D

from cad_exp.evaluation.fidelity.image_game import MEASURES
from cad_exp.evaluation.fidelity.statistics import agreement
from cad_exp.reporting.figures.canvas import HELPS, INK, OKABE_ITO, PALE, SUPPRESSES, canvas, save
from cad_exp.reporting.figures.lettering import wrapped

GRID = "#e5e7eb"
MARKERS = ("o", "^", "s", "D", "v", "P", "X")  # a rate has a colour and a mark: either is enough to tell it
KIND_TITLES = {
    "uniform": "random components",
    "top": "random ones among the top-scored",
    "single": "one component at a time",
}
Measure = tuple[str, float, str]  # as the records call it, its value for the intact model, as people call it
J: Measure = ("J", 0.0, "change of J")
ORDER_STYLES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "most": ("most helpful first", HELPS, {"marker": "o", "markersize": 4}),
    "least": ("most suppressing first", SUPPRESSES, {"marker": "s", "markersize": 4}),
    "random": ("in random order", PALE, {"linestyle": (0, (5, 3))}),
}


def scatter(records: pd.DataFrame, path: Path | str, title: str = "", measure: str = "J", verdict: str = "") -> Path:
    """Draw predicted against true change of a measure, a panel per kind of ablation, a colour per rate; returns `path`.

    records: those of `fidelity.ablation_fidelity` with the column `measure` (others are left out). On the dashed line
    every prediction is true; there is none where the measure is not what the scores predict. verdict: `verdict.scores`,
    the sentence below the title. The legend stands below the panels, where it hides no point.
    """
    rows = records[(records["study"] == "ablations") & (records["measure"] == measure)]
    kinds, rates = list(rows["kind"].unique()), sorted(rows["rate"].unique())
    looks = {rate: (OKABE_ITO[i % len(OKABE_ITO)], MARKERS[i % len(MARKERS)]) for i, rate in enumerate(rates)}
    width = 1.2 + 5.2 * max(1, len(kinds))
    below, above = 0.75 + 0.19 * (len(rates) + 1), 0.95 + 0.17 * len(_wrapped(verdict, width))
    figure = canvas(width, 4.5 + below + above)
    height, panels = figure.get_figheight(), figure.subplots(1, max(1, len(kinds)), squeeze=False)[0]
    place = {"top": 1 - above / height, "bottom": below / height, "wspace": 0.22}
    figure.subplots_adjust(left=0.9 / width, right=0.98, **place)
    for axes, kind in zip(panels, kinds, strict=False):
        _scatter_panel(axes, rows[rows["kind"] == kind], looks, line=measure == "J")
        axes.set_title(f"ablated: {KIND_TITLES.get(kind, kind)}", fontsize=10, color=INK, loc="left")
    panels[0].set_ylabel(f"true change of {MEASURES.get(measure, measure)}", fontsize=9.5, color=INK)
    line = "the line" if measure == "J" else "a rising line"
    what = f"Each mark is a set of components switched off; scores to be trusted put it on {line}."
    _title(figure, title or "Predicted and true effect of ablations", what, verdict)
    return save(figure, path)


def _scatter_panel(axes: Any, rows: pd.DataFrame, looks: dict[float, tuple[str, str]], line: bool) -> None:
    keys = []
    # Small effects are drawn last: the large ones of high rates would cover them.
    for rate in sorted(rows["rate"].unique(), reverse=True):
        own, (colour, marker) = rows[rows["rate"] == rate], looks[rate]
        axes.scatter(own["predicted"], own["true"], s=18, color=colour, marker=marker, alpha=0.6, linewidths=0)
        look: dict[str, Any] = {"marker": marker, "linestyle": "", "color": colour, "markersize": 5}
        keys.append(Line2D([], [], label=_said(rate, own, right=line), **look))
    both = np.concatenate([rows["predicted"], rows["true"], [0.0]])
    ends, same = [both.min(), both.max()], []
    if line:
        same = axes.plot(ends, ends, color=INK, linewidth=1, linestyle=(0, (5, 3)), label="true = predicted")
    _legend_below(axes, handles=[*reversed(keys), *same])
    axes.set_xlabel("predicted change of J: minus the sum of the scores", fontsize=9.5, color=INK)
    _frame(axes)


def _legend_below(axes: Any, **how: Any) -> None:
    """Draw the legend of a panel under the name of its horizontal axis, where it hides no point."""
    inches = axes.get_position().height * axes.figure.get_figheight()
    look = {"frameon": False, "fontsize": 8.5, "borderaxespad": 0}
    axes.legend(loc="upper left", bbox_to_anchor=(0, -0.5 / inches), **look, **how)


def _said(rate: float, rows: pd.DataFrame, right: bool) -> str:
    """Write "5 %: Pearson 0.90, slope 0.78, signs agree in 10 of 16, R² -2.1"; right: whether to give the last two."""
    found = agreement(rows["predicted"], rows["true"], resamples=0)
    pearson, slope, r2 = (_value(found[name]) for name in ("pearson", "slope", "r2"))
    text = f"{100 * rate:.3g} %: Pearson {pearson}, slope {slope}"
    if right and found["sign"]:
        text += f", signs agree in {round(found['sign'][0] * found['n'])} of {found['n']}, R² {r2}"
    return text


def _value(found: Any) -> str:
    return "-" if found is None else f"{found[0]:.2f}"


def curves(records: pd.DataFrame, path: Path | str, title: str = "", measures: Sequence[Measure] = (J,)) -> Path:
    """Draw each measure against the share of components removed, one line per order; returns `path` (PNG).

    records: those of `fidelity.ordered_curves` with the column `measure` (others are left out). The random orders are
    their mean and the band from the lowest to the highest of them.
    """
    figure = canvas(1.2 + 6.6 * len(measures), 5.7)
    panels, width = figure.subplots(1, len(measures), squeeze=False)[0], figure.get_figwidth()
    figure.subplots_adjust(left=0.8 / width, right=1 - 0.25 / width, top=0.83, bottom=0.16, wspace=0.2)
    for axes, (name, intact, label) in zip(panels, measures, strict=True):
        _curves_panel(axes, records[(records["study"] == "curve") & (records["measure"] == name)], intact, label)
    what = "While components are switched off one after the other, in the order of their scores."
    _title(figure, title or "Removing everything, in order", what)
    return save(figure, path)


def _curves_panel(axes: Any, rows: pd.DataFrame, intact: float, label: str) -> None:
    for order, (name, colour, style) in ORDER_STYLES.items():
        own = rows[rows["kind"] == order]
        if len(own) == 0:
            continue
        by_rate = intact + own.groupby("rate")["true"].agg(["mean", "min", "max"])
        axes.plot(by_rate.index, by_rate["mean"], color=colour, linewidth=2, label=name, **style)
        if own["draw"].nunique() > 1:
            axes.fill_between(by_rate.index, by_rate["min"], by_rate["max"], color=colour, alpha=0.18, linewidth=0)
    axes.axhline(intact, color=INK, linewidth=0.8)
    axes.annotate("intact", (1, intact), (0, 3), textcoords="offset points", ha="right", fontsize=8.5, color=INK)
    axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:g} %")
    axes.set_xlim(-0.01, 1.01 * max([*rows["rate"], 0.01]))
    axes.set_xlabel("components removed", fontsize=9.5, color=INK)
    axes.set_ylabel(label, fontsize=9.5, color=INK)
    _legend_below(axes, ncols=len(ORDER_STYLES))
    _frame(axes)


def _frame(axes: Any) -> None:
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8.5, length=2)


def _title(figure: Any, title: str, text: str, verdict: str = "") -> None:
    height, width = figure.get_size_inches()[::-1]
    title = wrapped(title, int(8 * width), 1)
    figure.text(0.15 / width, 1 - 0.14 / height, title, fontsize=14, fontweight="bold", color=INK, va="top")
    figure.text(0.15 / width, 1 - 0.47 / height, text, fontsize=8.8, color=PALE, va="top")
    if verdict:
        told = "\n".join(_wrapped(verdict, width))
        figure.text(0.15 / width, 1 - 0.66 / height, told, fontsize=9.5, fontweight="bold", color=INK, va="top")


def _wrapped(text: str, width: float) -> list[str]:
    """Lines of bold 9.5 point text that fit into so many inches."""
    return textwrap.wrap(text, int(12.2 * (width - 0.3)))
