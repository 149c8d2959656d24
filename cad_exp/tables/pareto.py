"""A study's picture: what erasing costs, one panel per concept, one line per way of choosing the edit."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from matplotlib.lines import Line2D

from cad_exp.figures import INK, PALE, _canvas, _save
from cad_exp.search.pareto import front
from cad_exp.tables.collect import Found
from cad_exp.tables.layout import Place, found_runs, label, place_of, places, repeated, resolve
from cad_exp.tables.plan import Job, Plan
from cad_exp.tables.study import Metric

# Series differ in colour and in marker, and the two cycles have different lengths: 90 series before one repeats.
COLOURS = ("#1d4ed8", "#c2410c", "#0f766e", "#7c3aed", "#be185d", "#a16207", "#0891b2", "#4d7c0f", "#991b1b")
MARKERS = ("o", "s", "^", "v", "D", "<", ">", "p", "h", "d")
FRONT, GRID = "#cbd5e1", "#e5e7eb"
MOST = 3  # panels beside each other
Points = tuple[list[float], list[float]]


def draw(plan: Plan, found: Found, path: Path) -> Path | None:
    """Draw the plan's runs that there are into a PNG; None where no run has both metrics of the axes."""
    return _Picture(plan, found).draw(path)


class _Picture:
    def __init__(self, plan: Plan, found: Found):
        self.study, self.found, self.plan = plan.study, found, plan
        runs = found_runs(plan, found)
        self.metrics = resolve([Metric(self.study.x), Metric(self.study.y)], runs)
        self.x, self.y = (self.higher(metric.metric) for metric in self.metrics)
        self.series = places(plan.jobs, self.study.series)
        self.panel_keys = list(self.study.panels)

    def higher(self, name: str) -> bool:
        """Whether more of a metric is better, as the first run has it."""
        found = (m for run in found_runs(self.plan, self.found) for (own, _), m in run.metrics.items() if own == name)
        return next((bool(metric["higher_is_better"]) for metric in found), True)

    def draw(self, path: Path) -> Path | None:
        panels = places(self.plan.jobs, self.panel_keys)
        if not any(self.points(list(self.plan.jobs), "edited")[0]):
            return None
        columns = 2 if len(panels) == 4 else min(len(panels), MOST)
        rows = -(-len(panels) // columns)
        figure = _canvas(max(6.4, 4.3 * columns), 1.5 + 3.7 * rows)
        figure.set_layout_engine("constrained")
        axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        for number, (place, spot) in enumerate(zip(panels, axes.flat, strict=False)):
            jobs = [job for job in self.plan.jobs if place_of(job, self.panel_keys) == place]
            self.panel(spot, jobs)
            spot.set_title(", ".join(map(self.study.shown, place)), fontsize=10.5, color=INK, loc="left")
            if number + columns >= len(panels):  # not supxlabel: the legend would come between it and the axes
                better = "right" if self.x else "left"
                spot.set_xlabel(f"{label(self.study.x, self.x)} (better: {better})", fontsize=9.5, color=INK)
        for spot in axes.flat[len(panels) :]:
            spot.axis("off")
        figure.supylabel(
            f"{label(self.study.y, self.y)} (better: {'up' if self.y else 'down'})", fontsize=9.5, color=INK
        )
        figure.suptitle(self.title(figure.get_figwidth()), x=0.01, ha="left", fontsize=13, fontweight="bold", color=INK)
        keys = self.keys()
        figure.legend(
            handles=keys, loc="outside lower center", ncols=min(len(keys), columns + 1), frameon=False, fontsize=8.8
        )
        return _save(figure, path)

    def title(self, width: float) -> str:
        """The study's, with what its points are means over, if they are."""
        groups: dict[Place, list[Job]] = {}
        for job in self.plan.jobs:
            keys = [*self.panel_keys, *self.study.series, self.study.along or ""]
            groups.setdefault(place_of(job, keys), []).append(job)
        differ = repeated(groups.values())
        text = self.study.title + (f" (means over {', '.join(differ)})" if differ else "")
        return "\n".join(textwrap.wrap(text, int(9 * width)))

    def panel(self, axes: Any, jobs: list[Job]) -> None:
        x, y = self.points(jobs, "edited")
        best = front([-value if self.y else value for value in y], [value if self.x else -value for value in x])
        # Between two points of the front nothing was found: the line is the stair that they really dominate.
        axes.step([x[i] for i in best], [y[i] for i in best], where="pre", color=FRONT, linewidth=4, zorder=1.5)
        axes.scatter(*self.points(jobs, "random"), marker="x", s=26, color=PALE, linewidths=1.1, zorder=2)
        x, y = self.points(jobs, "unedited")
        if x:
            axes.scatter([fmean(x)], [fmean(y)], marker="D", s=85, facecolor="none", edgecolor=INK, zorder=3)
        for number, place in enumerate(self.series):
            own = [job for job in jobs if place_of(job, self.study.series) == place]
            axes.plot(*self.points(own, "edited"), **_style(number), zorder=4)
        axes.grid(color=GRID, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.margins(0.07)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8.5, length=2, labelbottom=True)

    def points(self, jobs: Sequence[Job], variant: str) -> Points:
        """x and y of every series and step of `along`, in that order; of several runs the mean."""
        groups: dict[tuple[Place, Any], list[tuple[float, float]]] = {}
        along = [self.study.along] if self.study.along else []
        order = sorted(places(self.plan.jobs, along), key=_rising)
        for job in jobs:
            run = self.found.runs.get(job.hash)
            found = run and [run.metrics.get((m.metric, variant)) for m in self.metrics]
            if found and all(item and item["value"] is not None for item in found):
                place = (*place_of(job, self.panel_keys), *place_of(job, self.study.series))
                step = order.index(place_of(job, along))
                groups.setdefault((place, step), []).append(tuple(item["value"] for item in found))  # type: ignore
        means = [[fmean(axis) for axis in zip(*groups[key], strict=True)] for key in sorted(groups, key=_second)]
        return [mean[0] for mean in means], [mean[1] for mean in means]

    def keys(self) -> list[Line2D]:
        """The legend: the series, then what is the same in every picture."""
        made = [
            Line2D([], [], label=", ".join(map(self.study.shown, place)), **_style(number))
            for number, place in enumerate(self.series)
        ]
        made.append(Line2D([], [], color=FRONT, linewidth=4, label="Pareto front"))
        made.append(
            Line2D([], [], linestyle="", marker="D", markersize=8, fillstyle="none", color=INK, label="unedited model")
        )
        made.append(Line2D([], [], linestyle="", marker="x", markersize=5, color=PALE, label="random, equal budget"))
        return made


def _style(number: int) -> dict[str, Any]:
    colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
    return {"color": colour, "marker": marker, "markersize": 7.5, "linewidth": 1.4, "markeredgecolor": "white"}


def _rising(place: Place) -> Any:
    """Numbers by size; other values stay in the sweep's order, behind them."""
    value = place[0] if place else 0
    return (0, value) if isinstance(value, (int, float)) else (1, 0)


def _second(key: tuple[Place, Any]) -> Any:
    return key[1]
