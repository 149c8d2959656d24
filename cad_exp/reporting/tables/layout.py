"""Where every number of a study stands: its rows and columns, the best marked, the unedited model beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean

from cad_exp.reporting.tables.cells import Cells
from cad_exp.reporting.tables.collect import Found
from cad_exp.reporting.tables.metrics import resolve
from cad_exp.reporting.tables.notes import notes_of
from cad_exp.reporting.tables.places import Place, place_of, places
from cad_exp.reporting.tables.plan import Job, Plan
from cad_exp.reporting.tables.study import Metric
from cad_exp.reporting.tables.table import MISSING, NOTHING, Column, Entry, Row, Table

UNEDITED = "unedited"
UNEDITED_DEPENDS_ON = ("model", "concept", "prompts", "retention_prompts", "evaluation", "seed")  # groups of the config
Grid = dict[tuple[Place, Place], list[Entry]]


def lay_out(plan: Plan, found: Found) -> Table:
    """Lay out the table of a plan's jobs.

    UserError for a metric that no run has and for a reference that fits no cell.
    """
    table = _Layout(plan, found).table()
    for other in ("unedited", "random"):
        changed = _changed(found, other)
        cells = tuple(replace(each, optional=True) for each in resolve(plan.study.cells, plan, found))
        cells = tuple(each for each in cells if _has(changed, each))
        if cells:
            study = replace(plan.study, cells=cells, intervals=True, baseline=(), reference=(), footnote=(), best=None)
            title = f"Change: edited less {other}, on the same prompts and seeds"
            table.changes[title] = _Layout(replace(plan, study=study), changed).table()
    return table


def _changed(found: Found, other: str) -> Found:
    """Return the same runs, with the paired changes against another variant as the edited variant's metrics."""
    runs = {}
    for key, run in found.runs.items():
        edited = ((name, metric) for (name, variant), metric in run.metrics.items() if variant == "edited")
        changes = {name: (metric, metric["changes"].get(other)) for name, metric in edited}
        metrics = {(name, "edited"): metric | change for name, (metric, change) in changes.items() if change}
        runs[key] = replace(run, metrics=metrics)
    return replace(found, runs=runs)


def _has(found: Found, metric: Metric) -> bool:
    return any((metric.metric, metric.variant) in run.metrics for run in found.runs.values())


class _Layout:
    def __init__(self, plan: Plan, found: Found):
        self.plan, self.study = plan, plan.study
        self.metrics = resolve(plan.study.cells, plan, found)
        self.cells = Cells(plan, found, self.metrics)
        self.rows, self.columns = (places(plan.jobs, keys) for keys in (self.study.rows, self.study.columns))
        self.jobs: dict[tuple[Place, Place], list[Job]] = {}
        for job in plan.jobs:
            self.jobs.setdefault((place_of(job, self.study.rows), place_of(job, self.study.columns)), []).append(job)

    def table(self) -> Table:
        study = self.study
        grid = {(row, column): self.entries(row, column) for row in self.rows for column in self.columns}
        if study.best:
            self.mark(grid)
        rows = [
            Row(list(map(study.shown, row)), self.joined([grid[row, column] for column in self.columns]))
            for row in self.rows
        ]
        columns = self.heads()
        if study.baseline:
            self.add_baseline(rows, columns)
        missing = [job for job in self.plan.jobs if not self.cells.has(job)]
        entries = [entry for several in grid.values() for entry in several]
        notes = notes_of(self.plan, self.cells, entries, self.jobs.values())
        heads = [study.head(key) for key in study.rows]
        return Table(heads, columns, rows, study.join or "", notes, missing, self.metrics)

    def entries(self, row: Place, column: Place) -> list[Entry]:
        """One entry per metric of a cell."""
        return [self.cells.entry(metric, self.jobs.get((row, column), [])) for metric in self.metrics]

    def mark(self, grid: Grid) -> None:
        """Best and second best of each row or column, per metric, by the digits that are shown."""
        lines, others = (self.rows, self.columns) if self.study.best == "rows" else (self.columns, self.rows)
        for line in lines:
            for index in range(len(self.metrics)):
                pairs = [(line, other) if self.study.best == "rows" else (other, line) for other in others]
                mark_best([grid[pair][index] for pair in pairs])

    def joined(self, entries: list[list[Entry]]) -> list[list[Entry]]:
        """Join the metrics of a column in one cell, where the study asks for it; else each has a cell of its own."""
        if self.study.join is None:
            return [[entry] for several in entries for entry in several]
        empty = [[Entry(text)] * len(self.metrics) for text in ("", MISSING)]
        return [several[:1] if several in empty else several for several in entries]

    def heads(self) -> list[Column]:
        names = [self.cells.head(metric) for metric in self.metrics]
        columns = [
            ", ".join(self.study.shown(value) for value in column if value is not None) or NOTHING * bool(column)
            for column in self.columns
        ]
        if self.study.join is not None:
            return [Column(name or "each") for name in columns]
        if len(names) == 1:
            return [Column(name or names[0]) for name in columns]
        return [Column(name, group) for group in columns for name in names]

    def add_baseline(self, rows: list[Row], columns: list[Column]) -> None:
        """Add the unedited model: a column where only the rows tell unedited models apart, else a row."""
        study = self.study
        if _tells_apart(study.rows) and not _tells_apart(study.columns):
            for row, place in zip(rows, self.rows, strict=True):
                row.cells += self.joined([self.unedited(row=place)])
            names = [self.cells.head(metric) for metric in self.metrics if metric.metric in study.baseline]
            several = study.join is None and len(names) > 1
            columns += [Column(name, UNEDITED) for name in names] if several else [Column(UNEDITED)]
        else:
            entries = [self.unedited(column=place, blank=True) for place in self.columns]
            labels = [UNEDITED, *[""] * (len(study.rows) - 1)]
            rows.append(Row(labels, self.joined(entries)))

    def unedited(self, row: Place | None = None, column: Place | None = None, blank: bool = False) -> list[Entry]:
        """Metrics of the unedited model over the runs of a row or column; blank: metrics not asked for are empty."""
        beside = [jobs for (r, c), jobs in self.jobs.items() if r == row or c == column]
        jobs = [job for several in beside for job in several if self.cells.has(job)]
        entries = []
        for metric in self.metrics:
            found = self.cells.found(replace(metric, variant=UNEDITED), jobs)
            values = [item["value"] for item in found]
            if metric.metric in self.study.baseline:
                missing = NOTHING if jobs else MISSING
                entries.append(Entry(self.cells.text(fmean(values), metric) if values else missing))
            elif blank and self.study.join is None:
                entries.append(Entry(""))
        return entries


def mark_best(entries: list[Entry]) -> None:
    """Mark the best and the second best; a mean over a part of its runs takes no part: it may yet change."""
    shown = [entry for entry in entries if entry.text not in ("", MISSING, NOTHING) and not entry.partial]
    directions = {entry.higher for entry in shown}
    if len(shown) < 2 or len(directions) > 1 or None in directions:
        return
    order = sorted({float(entry.text) for entry in shown}, reverse=directions == {True})
    for entry in shown:
        rank = order.index(float(entry.text)) + 1
        entry.mark = rank if rank <= 2 else 0


def _tells_apart(keys: Sequence[str]) -> bool:
    return any(key.partition(".")[0] in UNEDITED_DEPENDS_ON for key in keys)
