"""A table before it has a file format: rows, columns, and cells with intervals, marks and references."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from cad_exp.reporting.tables.plan import Job
from cad_exp.reporting.tables.study import Metric

MISSING, NOTHING = "·", "-"


@dataclass
class Entry:
    """One metric in one cell. mark: 1 best, 2 second best, 0 neither; tail: interval, range, reference.

    partial: not every run of the cell has given a value. runs: folders of the runs behind it.
    """

    text: str
    tail: str = ""
    mark: int = 0
    higher: bool | None = None
    partial: bool = False
    runs: tuple[Path, ...] = ()


@dataclass
class Column:
    """head: what stands over the numbers; group: what stands over several such columns ("" if nothing)."""

    head: str
    group: str = ""


@dataclass
class Row:
    """labels: one per key of the rows; cells: one per column, each with its entries (several where they are joined)."""

    labels: list[str]
    cells: list[list[Entry]]


@dataclass
class Table:
    """heads: over the labels. notes: sentences below the table. missing: jobs without a complete run."""

    heads: list[str]
    columns: list[Column]
    rows: list[Row]
    join: str
    notes: list[str] = field(default_factory=list)
    missing: list[Job] = field(default_factory=list)
    metrics: list[Metric] = field(default_factory=list)
    changes: dict[str, Table] = field(default_factory=dict)  # title -> the same table of the paired changes
