"""A study's picture: what erasing costs, one panel per concept, one line per way of choosing the edit."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from itertools import zip_longest
from pathlib import Path
from statistics import fmean
from typing import Any

from matplotlib.lines import Line2D

from cad_exp.reporting.figures.canvas import INK, OKABE_ITO, PALE, canvas, save
from cad_exp.reporting.pareto_front import front
from cad_exp.reporting.tables.collect import Found
from cad_exp.reporting.tables.metrics import found_runs, label, resolve
from cad_exp.reporting.tables.places import Place, place_of, places, repeated
from cad_exp.reporting.tables.plan import Job, Plan
from cad_exp.reporting.tables.study import Metric

# One key of `series` is one visual channel: the first the colour, the second the mark, the third the line.
COLOURS = (*OKABE_ITO, "#57534e")
MARKERS = ("o", "^", "s", "D", "v", "p", "<", ">", "h", "d")
LINES = ("-", (0, (3, 2)), (0, (1, 1.4)), (0, (5, 1.5, 1, 1.5)))
FRONT, RING, GRID = "#cbd5e1", "#64748b", "#e5e7eb"
MOST = 3  # panels beside each other
SMALLEST, LARGEST = 3.5, 8.5  # marks, in points
MARGIN = 0.07  # of the panel, beside the outermost points
Point = tuple[int, float, float]  # the step of `along`, x, y


def draw(plan: Plan, found: Found, path: Path) -> Path | None:
    """Draw the plan's runs that there are into a PNG; None where no run has both metrics of the axes."""
    picture = _Picture(plan, found)
    return picture.draw(path) if picture.points(plan.jobs, "edited") else None


class _Picture:
    def __init__(self, plan: Plan, found: Found):
        self.study, self.found, self.plan = plan.study, found, plan
        self.metrics = resolve([Metric(self.study.x), Metric(self.study.y)], plan, found)
        self.x, self.y = (self.higher(metric.metric) for metric in self.metrics)
        self.along = (self.study.along or "",)
        self.steps = sorted(places(plan.jobs, self.along), key=_rising)

    def higher(self, name: str) -> bool:
        """Whether more of a metric is better, as the first run has it."""
        found = (m for run in found_runs(self.plan, self.found) for (own, _), m in run.metrics.items() if own == name)
        return next((bool(metric["higher_is_better"]) for metric in found), True)

    def draw(self, path: Path) -> Path:
        panels = places(self.plan.jobs, self.study.panels)
        columns = 2 if len(panels) == 4 else min(len(panels), MOST)
        rows = -(-len(panels) // columns)
        figure = canvas(max(6.4, 4.3 * columns), 1.9 + 3.5 * rows)
        figure.set_layout_engine("constrained")
        axes = figure.subplots(rows, columns, squeeze=False)
        inside = [self.of_panel(place) for place in panels]
        limits = self.limits(inside)
        for number, (place, jobs, spot) in enumerate(zip(panels, inside, axes.flat, strict=False)):
            spot.set(xlim=limits[0], ylim=limits[1])
            self.panel(spot, jobs)
            spot.set_title(", ".join(map(self.study.shown, place)), fontsize=10.5, color=INK, loc="left")
            if number + columns >= len(panels):
                spot.set_xlabel(_axis(self.study.x, "right" if self.x else "left"), fontsize=9.5, color=INK)
            if number % columns == 0:
                spot.set_ylabel(_axis(self.study.y, "up" if self.y else "down"), fontsize=9.5, color=INK)
        for spot in axes.flat[len(panels) :]:
            spot.axis("off")
        title = "\n".join(textwrap.wrap(self.title(), int(9 * figure.get_figwidth())))
        figure.suptitle(title, x=0.01, ha="left", fontsize=13, fontweight="bold", color=INK)
        self.legend(figure)
        return save(figure, path)

    def of_panel(self, place: Place) -> list[Job]:
        return [job for job in self.plan.jobs if place_of(job, self.study.panels) == place]

    def title(self) -> str:
        """Return the study's title, with what its points are means over, if they are."""
        groups: dict[Place, list[Job]] = {}
        for job in self.plan.jobs:
            groups.setdefault(place_of(job, (*self.study.panels, *self.study.series, *self.along)), []).append(job)
        differ = repeated(groups.values())
        return self.study.title + (f" (means over {', '.join(differ)})" if differ else "")

    def points(self, jobs: Iterable[Job], variant: str) -> list[Point]:
        """Every series' points in the order of `along`; of several runs the mean."""
        groups: dict[tuple[int, Place], list[list[float]]] = {}
        for job in jobs:
            run = self.found.runs.get(job.hash)
            found = [run.metrics.get((metric.metric, variant)) for metric in self.metrics] if run else [None]
            values = [item["value"] for item in found if item and item["value"] is not None]
            if len(values) == len(self.metrics):
                place = place_of(job, (*self.study.panels, *self.study.series))
                groups.setdefault((self.steps.index(place_of(job, self.along)), place), []).append(values)
        order = sorted(groups, key=lambda group: group[0])
        means = {key: [fmean(axis) for axis in zip(*groups[key], strict=True)] for key in order}
        return [(key[0], x, y) for key, (x, y) in means.items()]

    def limits(self, panels: list[list[Job]]) -> list[tuple[float, float]]:
        """Return the ends of both axes, the same in all panels."""
        found = [p for jobs in panels for kind in ("edited", "random", "unedited") for p in self.points(jobs, kind)]
        ends = [(min(axis), max(axis)) for axis in list(zip(*found, strict=True))[1:]]
        margins = [MARGIN * ((high - low) or 1.0) for low, high in ends]
        return [(low - space, high + space) for (low, high), space in zip(ends, margins, strict=True)]

    def front(self, points: list[Point]) -> list[Point]:
        """Return the points that no other beats, from the strongest edit to the gentlest."""
        costs = [-y if self.y else y for _, _, y in points]
        return [points[i] for i in front(costs, [x if self.x else -x for _, x, _ in points])]

    def panel(self, axes: Any, jobs: list[Job]) -> None:
        self.draw_front(axes, self.front(self.points(jobs, "edited")))
        _, x, y = _axes(self.points(jobs, "random"))
        axes.scatter(x, y, marker="x", s=22, color=PALE, linewidths=1, alpha=0.7, zorder=2)
        if unedited := self.points(jobs, "unedited"):
            _, x, y = _axes(unedited)
            axes.scatter([fmean(x)], [fmean(y)], marker="D", s=95, facecolor="none", edgecolor=INK, zorder=3)
        for place in places(self.plan.jobs, self.study.series):
            own = [job for job in jobs if place_of(job, self.study.series) == place]
            self.draw_series(axes, _axes(self.points(own, "edited")), **self.style(place))
        axes.grid(color=GRID, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8.5, length=2)

    def draw_front(self, axes: Any, best: list[Point]) -> None:
        """Draw the stair of what the front dominates, for nothing was found between its points. Rings mark them."""
        if not best:
            return
        _, x, y = _axes(best)
        worst = axes.get_xlim()[0 if self.x else 1], axes.get_ylim()[0 if self.y else 1]
        axes.step([worst[0], *x, x[-1]], [y[0], *y, worst[1]], where="pre", color=FRONT, linewidth=4, zorder=1.5)
        axes.scatter(x, y, s=(LARGEST + 4.5) ** 2, facecolor="none", edgecolor=RING, linewidths=1.3, zorder=3.5)

    def draw_series(self, axes: Any, points: list[list[Any]], color: str, marker: str, line: Any) -> None:
        steps, x, y = points
        axes.plot(x, y, color=color, linestyle=line, linewidth=1.3, alpha=0.85, zorder=4)
        sizes = [self.size(step) ** 2 for step in steps]
        look = {"alpha": 0.85, "edgecolor": "white", "linewidths": 0.7, "clip_on": False}
        axes.scatter(x, y, s=sizes, color=color, marker=marker, zorder=4.5, **look)

    def size(self, step: int) -> float:
        return SMALLEST + (LARGEST - SMALLEST) * (step + 1) / len(self.steps)

    def style(self, place: Place) -> dict[str, Any]:
        """Colour, mark and line of a series, by its first, second and third value."""
        cycles: dict[str, Sequence[Any]] = {"color": COLOURS, "marker": MARKERS, "line": LINES}
        look: dict[str, Any] = {name: cycle[0] for name, cycle in cycles.items()}
        for name, value, seen in zip(cycles, place, self.values(), strict=False):
            look[name] = cycles[name][seen.index(value) % len(cycles[name])]
        return look

    def values(self) -> list[list[Any]]:
        """Return the values of each key of `series`."""
        return [[place[0] for place in places(self.plan.jobs, [key])] for key in self.study.series]

    def legend(self, figure: Any) -> None:
        """One column per key of `series` under its name, then what is the same in every picture."""
        blank = Line2D([], [], linestyle="", label=" ")
        columns = [self.channel(number, values) for number, values in enumerate(self.values())]
        columns.append([blank, *_common()])
        lines = list(zip_longest(*columns, fillvalue=blank))
        title = f"larger marks: more {self.study.head(self.along[0])}" if len(self.steps) > 1 else None
        handles = [line[number] for number in range(len(columns)) for line in lines]
        look = {"frameon": False, "fontsize": 8.8, "title_fontsize": 8.8, "handlelength": 2.8, "columnspacing": 3}
        figure.legend(handles=handles, loc="outside lower center", ncols=len(columns), title=title, **look)

    def channel(self, number: int, values: list[Any]) -> list[Line2D]:
        """Return a legend's column: the name of a key of `series`, then what each of its values looks like."""
        made = [Line2D([], [], linestyle="", label=f"{self.study.head(self.study.series[number])}:")]
        for index, value in enumerate(values):
            looks: tuple[dict[str, Any], ...] = (
                {"color": COLOURS[index % len(COLOURS)], "linewidth": 4},
                {"color": INK, "linestyle": "", "marker": MARKERS[index % len(MARKERS)], "markersize": LARGEST},
                {"color": INK, "linewidth": 1.3, "linestyle": LINES[index % len(LINES)]},
            )
            made.append(Line2D([], [], label=self.study.shown(value), **looks[number]))
        return made


def _common() -> list[Line2D]:
    hollow: dict[str, Any] = {"linestyle": "", "fillstyle": "none", "markersize": 8}
    return [
        Line2D([], [], color=FRONT, linewidth=4, marker="o", markersize=9, mfc="none", mec=RING, label="Pareto front"),
        Line2D([], [], marker="D", color=INK, label="unedited model", **hollow),
        Line2D([], [], marker="x", color=PALE, label="random, equal budget", **hollow | {"markersize": 5}),
    ]


def _axes(points: list[Point]) -> list[list[Any]]:
    """Split points into steps, x and y."""
    return [[point[axis] for point in points] for axis in range(3)]


def _axis(metric: str, better: str) -> str:
    return f"{label(metric)} (better: {better})"


def _rising(place: Place) -> Any:
    """Numbers by size; other values stay in the sweep's order, behind them."""
    return (0, place[0]) if isinstance(place[0], (int, float)) else (1, 0)
