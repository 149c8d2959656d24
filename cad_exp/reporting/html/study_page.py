"""The page of a study: its table, each cell a link to its run's report, and what is missing."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from cad_exp.reporting.html import place
from cad_exp.reporting.html.pictures import Picture, figure
from cad_exp.reporting.html.render import page
from cad_exp.reporting.html.runs_page import link
from cad_exp.reporting.tables.collect import Found
from cad_exp.reporting.tables.plan import Plan
from cad_exp.reporting.tables.table import Entry, Table
from cad_exp.reporting.tables.write import SINGLE

MARKS = ("", "best", "second")
LINKS = 12  # of one entry


@dataclass(frozen=True)
class Shown:
    """One metric in a cell. links: to the reports of the runs behind it; mark: best, second or ""."""

    text: str
    tail: str
    mark: str
    links: list[str]


@dataclass(frozen=True)
class Cell:
    """The entries of a cell, and the number by which it is sorted; None where it has none."""

    entries: list[Shown]
    value: float | None


@dataclass(frozen=True)
class Laid:
    """A table as the page shows it. groups: (name, columns below it); columns: their heads."""

    title: str
    heads: list[str]
    groups: list[tuple[str, int]]
    columns: list[str]
    rows: list[tuple[list[str], list[Cell]]]
    join: str
    notes: list[str]


@dataclass(frozen=True)
class Missing:
    """What makes a missing run. started: whether it began and did not finish."""

    command: str
    started: bool


def write(plan: Plan, table: Table, made: list[str], found: Found, path: Path) -> Path:
    """Write the page of a study. made: lines on how the numbers were made. UserError for a place that is not ours."""
    tables = [_laid("The table", table, path), *(_laid(title, each, path) for title, each in table.changes.items())]
    lacking = [Missing(plan.command(job), job.hash in found.unfinished) for job in table.missing[:SINGLE]]
    missing = {"number": len(table.missing), "of": len(plan.jobs), "sweep": plan.sweep, "single": lacking}
    content = {"study": plan.study, "tables": tables, "made": made, "missing": missing, "picture": _picture(path)}
    return place.save(page("study.html", **content), path)


def _picture(path: Path) -> Picture | None:
    file = path.with_suffix(".png")
    return figure(file, "the picture of the study") if file.is_file() else None


def _laid(title: str, table: Table, path: Path) -> Laid:
    groups: list[tuple[str, int]] = []
    for column in table.columns:
        same = bool(groups) and groups[-1][0] == column.group
        groups = [*groups[:-1], (column.group, groups[-1][1] + 1)] if same else [*groups, (column.group, 1)]
    rows = [(row.labels, [_cell(entries, path) for entries in row.cells]) for row in table.rows]
    named = groups if any(name for name, _ in groups) else []
    return Laid(title, table.heads, named, [column.head for column in table.columns], rows, table.join, table.notes)


def _cell(entries: list[Entry], path: Path) -> Cell:
    shown = [
        Shown(each.text, each.tail, MARKS[each.mark], [link(run, path) for run in each.runs[:LINKS]])
        for each in entries
    ]
    numbers = [found for each in entries if (found := re.fullmatch(r"-?\d*\.?\d+", each.text))]
    return Cell(shown, float(numbers[0][0]) if numbers else None)
