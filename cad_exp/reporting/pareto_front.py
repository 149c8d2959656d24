"""The Pareto front of a search: who is on it, which edit is best under the constraint; as table, CSV and picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich.markup import escape
from rich.table import Table

from cad_exp.reporting.figures.canvas import HELPS, INK, PALE, SUPPRESSES, canvas, save
from cad_exp.reporting.wording import number
from cad_exp.utils.console import clean
from cad_exp.utils.io import atomic

Row = dict[str, Any]  # one finished trial: trial, folder, its parameters, concept_rate, retention, *_low, *_high, ...
TOLERANCE = 1e-9  # a mean of 0.95 may be stored as 0.9499999999999999


def front(costs: Sequence[float], gains: Sequence[float]) -> list[int]:
    """Find, by rising cost, the points that no other point beats: none has a lower cost and at least the gain.

    Of equal points the first counts.
    """
    chosen: list[int] = []
    for index in sorted(range(len(costs)), key=lambda i: (costs[i], -gains[i], i)):
        if not chosen or gains[index] > gains[chosen[-1]]:
            chosen.append(index)
    return chosen


def rank(rows: list[Row], bound: float, higher: bool) -> tuple[list[Row], Row | None, Row | None]:
    """Rank trials as (front, best, closest).

    best is the strongest trial with retention >= bound; without one, closest falls least short of it. higher: whether
    this search wants a high concept rate. Ties go to more retention, then to the smaller ratio, then to the earlier
    trial.
    """

    def cost(row: Row) -> float:
        rate: float = row["concept_rate"]
        return -rate if higher else rate

    def small(row: Row) -> tuple[float, int]:
        return row["ratio"] or 0.0, row["trial"]

    rows = sorted(rows, key=small)
    on_front = [rows[i] for i in front([cost(row) for row in rows], [row["retention"] for row in rows])]
    allowed = [row for row in rows if row["retention"] >= bound - TOLERANCE]
    if allowed:
        return on_front, min(allowed, key=lambda row: (cost(row), -row["retention"], *small(row))), None
    return on_front, None, min(rows, key=lambda row: (-row["retention"], cost(row), *small(row)), default=None)


def table(on_front: list[Row], best: Row | None, parameters: Sequence[str], higher: bool) -> Table:
    """Return the front as a rich table, strongest first; the best trial under the constraint is bold and says so."""
    made = Table(title="Pareto front", title_justify="left", header_style="bold")
    for name in ("trial", *parameters):
        made.add_column(name, no_wrap=True)
    for name in (f"concept rate ({'higher' if higher else 'lower'})", "retention, mean (higher)"):
        made.add_column(name, justify="right", no_wrap=True)
    made.add_column("folder", no_wrap=True)
    for row in on_front:
        cells = [str(row["trial"]), *(f"{row[p]:g}" if isinstance(row[p], float) else str(row[p]) for p in parameters)]
        cells += [_interval(row, "concept_rate"), _interval(row, "retention"), row["folder"]]
        is_best = best is not None and row["trial"] == best["trial"]
        cells[0] += " best" if is_best else ""
        made.add_row(*(escape(clean(each)) for each in cells), style="bold" if is_best else None)
    return made


def _interval(row: Row, name: str) -> str:
    return f"{number(row[name])} [{number(row[f'{name}_low'])}, {number(row[f'{name}_high'])}]"


def save_csv(rows: list[Row], on_front: list[Row], best: Row | None, bound: float, path: Path) -> Path:
    """One row per finished trial, with what it was and whether it is allowed, on the front, the best."""
    members = {row["trial"] for row in on_front}
    content = [
        {
            **row,
            "keeps_enough": row["retention"] >= bound - TOLERANCE,
            "on_front": row["trial"] in members,
            "best": best is not None and row["trial"] == best["trial"],
        }
        for row in rows
    ]
    with atomic(path) as temporary:
        pd.DataFrame(content).to_csv(temporary, index=False)
    return path


def draw(
    rows: list[Row], on_front: list[Row], best: Row | None, bound: float, higher: bool, path: Path, title: str
) -> Path:
    """Concept rate against retention: every trial, the front, the constraint, random edits of equal budget; a PNG.

    Told apart by shape as well as by colour. Numbers at the front's points are the trials'.
    """
    figure = canvas(8.6, 5.6)
    figure.set_layout_engine("constrained")
    axes = figure.subplots()
    axes.axvspan(bound, 2, color="#eef2f7", zorder=0)
    axes.axvline(
        bound, color=INK, linewidth=1, linestyle=(0, (4, 3)), label=f"constraint: retention of at least {bound:g}"
    )

    def points(chosen: list[Row], prefix: str = "") -> tuple[list[float], list[float]]:
        return [row[f"{prefix}retention"] for row in chosen], [row[f"{prefix}concept_rate"] for row in chosen]

    axes.scatter(*points(rows, "random_"), marker="x", s=28, color=PALE, label="random edits of equal budget", zorder=2)
    axes.scatter(
        *points(rows[:1], "unedited_"),
        marker="D",
        s=130,
        facecolor="none",
        edgecolor=INK,
        label="unedited model",
        zorder=3,
    )
    axes.scatter(*points(rows), s=34, facecolor="none", edgecolor=SUPPRESSES, label="tried edits", zorder=3)
    x, y = points(on_front)
    # Between two points of the front nothing was found: the line is the stair that they really dominate.
    axes.step(x, y, where="pre", color=SUPPRESSES, linewidth=1.4, zorder=3)
    axes.errorbar(
        x,
        y,
        xerr=_lengths("retention", on_front),
        yerr=_lengths("concept_rate", on_front),
        fmt="none",
        ecolor="#93b4f5",
        elinewidth=1,
        zorder=2.5,
    )
    axes.plot(x, y, "o", color=SUPPRESSES, markersize=6.5, zorder=4)
    axes.plot([], [], "o-", color=SUPPRESSES, markersize=6.5, label="Pareto front, 95 % intervals")
    for row in on_front:
        place = (row["retention"], row["concept_rate"])
        axes.annotate(str(row["trial"]), place, (6, 6), textcoords="offset points", fontsize=9, color=INK, zorder=6)
    if best:
        strongest = f"best with retention ≥ {bound:g}: trial {best['trial']}"
        axes.scatter(*points([best]), marker="*", s=260, color=HELPS, edgecolor="white", label=strongest, zorder=5)
    shown = [row[key] for row in rows for key in ("retention", "random_retention", "unedited_retention")]
    low = min([*shown, *(row["retention_low"] for row in on_front), bound])
    axes.set_xlim(low - 0.05 * (1 - low) - 0.01, 1 + 0.05 * (1 - low) + 0.005)
    axes.set_ylim(-0.04, 1.06)
    axes.set_xlabel("retention, mean: share of everything else that still shows what its prompt names →")
    axes.set_ylabel(f"concept rate {'→ (higher is stronger)' if higher else '← (lower is stronger)'}")
    axes.grid(color="#e5e7eb", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(title, loc="left", fontsize=12, fontweight="bold", color=INK)
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=8.8)
    return save(figure, path)


def _lengths(name: str, rows: list[Row]) -> list[list[float]]:
    """Lengths of the error bars, below and above, as matplotlib wants them."""
    below = [max(row[name] - row[f"{name}_low"], 0.0) for row in rows]
    return [below, [max(row[f"{name}_high"] - row[name], 0.0) for row in rows]]
