"""Where every number of a study stands: rows, columns, cells with intervals, marks and references. No file format."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Any

from cad_exp.reporting import summary
from cad_exp.reporting.results import VARIANTS
from cad_exp.reporting.tables.collect import Found, Run
from cad_exp.reporting.tables.plan import Job, Plan, lookup
from cad_exp.reporting.tables.study import Metric, Reference
from cad_exp.utils.errors import UserError, choose

MISSING, NOTHING = "·", "-"
DRAWN = "drawn"  # in place of a metric: what is drawn instead of the concept, in words
UNEDITED = "unedited"
UNEDITED_DEPENDS_ON = ("model", "concept", "prompts", "others", "evaluation", "seed")  # groups of the config
Place = tuple[Any, ...]  # the values of a table's keys


@dataclass
class Entry:
    """One metric in one cell. mark: 1 best, 2 second best, 0 neither; tail: interval, range, reference.

    partial: not every run of the cell has given a value.
    """

    text: str
    tail: str = ""
    mark: int = 0
    higher: bool | None = None
    partial: bool = False


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


def lay_out(plan: Plan, found: Found) -> Table:
    """The table of a plan's jobs. UserError for a metric that no run has and for a reference that fits no cell."""
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
    """The same runs, with the paired changes against another variant as the edited variant's metrics."""
    runs = {}
    for key, run in found.runs.items():
        edited = ((name, metric) for (name, variant), metric in run.metrics.items() if variant == "edited")
        changes = {name: (metric, metric["changes"].get(other)) for name, metric in edited}
        metrics = {(name, "edited"): metric | change for name, (metric, change) in changes.items() if change}
        runs[key] = replace(run, metrics=metrics)
    return replace(found, runs=runs)


def _has(found: Found, metric: Metric) -> bool:
    return any((metric.metric, metric.variant) in run.metrics for run in found.runs.values())


def resolve(metrics: Iterable[Metric], plan: Plan, found: Found) -> list[Metric]:
    """The metrics with their variants chosen, without optional ones that no run has.

    UserError where all runs are there and none has a metric that is not optional.
    """
    runs, chosen = found_runs(plan, found), []
    whole = len(runs) == len(plan.jobs)  # before that, what a metric is missing from may be the runs to come
    for metric in metrics:
        if metric.metric == DRAWN:
            chosen.append(replace(metric, variant="edited"))
            continue
        there = {variant for run in runs for name, variant in run.metrics if name == metric.metric}
        if metric.optional and not there:
            continue
        if whole:
            choose(metric.metric, sorted({name for run in runs for name, _ in run.metrics}), "metric")
        variant = metric.variant or ("attribution" if there == {"attribution"} else "edited")
        if whole and variant not in there:
            raise UserError(
                f"the metric '{metric.metric}' has no variant '{variant}'. "
                f"There are: {', '.join(sorted(there, key=VARIANTS.index))}"
            )
        chosen.append(replace(metric, variant=variant))
    return chosen


def found_runs(plan: Plan, found: Found) -> list[Run]:
    """The complete runs of a plan's jobs, in the order of the jobs."""
    return [found.runs[job.hash] for job in plan.jobs if job.hash in found.runs]


def places(jobs: Sequence[Job], keys: Sequence[str]) -> list[Place]:
    """The combinations of the keys' values that occur, sorted by the order in which the sweep names each value."""
    seen: list[list[Any]] = [[] for _ in keys]
    found = [place_of(job, keys) for job in jobs]
    for place in found:
        for values, value in zip(seen, place, strict=True):
            if value not in values:
                values.append(value)
    return sorted(
        dict.fromkeys(found), key=lambda place: [values.index(v) for values, v in zip(seen, place, strict=True)]
    )


def place_of(job: Job, keys: Sequence[str]) -> Place:
    return tuple(_word(lookup(job.config, key)) for key in keys)


def _word(value: Any) -> Any:
    """A config's value as something that can be compared: "a, b" for a list."""
    if isinstance(value, list):
        return ", ".join(map(str, value)) or NOTHING
    return str(value) if isinstance(value, dict) else value


def label(name: str, higher: bool | None = None) -> str:
    """A metric's name for people, with an arrow that says which direction is better."""
    return summary.LABELS.get(name, name) + ("" if higher is None else " ↑" if higher else " ↓")


class _Layout:
    def __init__(self, plan: Plan, found: Found):
        self.plan, self.study, self.runs = plan, plan.study, found.runs
        self.metrics = resolve(plan.study.cells, plan, found)
        self.rows, self.columns = (places(plan.jobs, keys) for keys in (self.study.rows, self.study.columns))
        self.jobs: dict[tuple[Place, Place], list[Job]] = {}
        for job in plan.jobs:
            self.jobs.setdefault((place_of(job, self.study.rows), place_of(job, self.study.columns)), []).append(job)
        self.sources = list(dict.fromkeys(reference.source for reference in self.study.reference))
        self.unfit = list(self.study.reference)
        self.notes: list[str] = []
        self.warnings: dict[str, None] = {}
        self.sizes = {m: {i["n"] for i in self.found(m, filter(self.has, plan.jobs)) if i["n"]} for m in self.metrics}

    def table(self) -> Table:
        study = self.study
        grid = {
            (row, column): [self.entry(metric, row, column) for metric in self.metrics]
            for row in self.rows
            for column in self.columns
        }
        if study.best:
            self.mark(grid)
        rows = [
            Row(list(map(study.shown, row)), self.cells([grid[row, column] for column in self.columns]))
            for row in self.rows
        ]
        columns = self.heads()
        if study.baseline:
            self.add_baseline(rows, columns)
        missing = [job for job in self.plan.jobs if job.hash not in self.runs]
        self.explain(grid)
        heads = [study.head(key) for key in study.rows]
        return Table(heads, columns, rows, study.join or "", self.notes, missing, self.metrics)

    def entry(self, metric: Metric, row: Place, column: Place) -> Entry:
        """The number of one metric in one cell, over all its runs."""
        jobs = self.jobs.get((row, column), [])
        done = [job for job in jobs if self.has(job)]
        if metric.metric == DRAWN and done:
            return Entry(self.drawn(done))
        found = self.found(metric, done)
        made = self.number(metric, found) if done else Entry(MISSING if jobs else "")
        if done and (len(found) or len(done)) < len(jobs):
            made.partial = True
            made.tail += f" {MISSING}"
        made.tail += self.references(metric, jobs)
        return made

    def drawn(self, jobs: list[Job]) -> str:
        """What is drawn instead of the concept, mean over the runs."""
        shares: dict[str, float] = {}
        for metric in (each for job in jobs for each in self.runs[job.hash].metrics.values()):
            if metric["name"].startswith("drawn@") and metric["variant"] == "edited":
                shares[metric["name"]] = shares.get(metric["name"], 0.0) + metric["value"] / len(jobs)
        named = [{"name": name, "variant": "edited", "value": value} for name, value in shares.items()]
        return summary.drawn_instead(named) or NOTHING

    def has(self, job: Job) -> bool:
        return job.hash in self.runs

    def found(self, metric: Metric, jobs: Iterable[Job]) -> list[dict[str, Any]]:
        """What the runs of these jobs say of a metric, where they have a value."""
        all_ = (self.runs[job.hash].metrics.get((metric.metric, metric.variant or "")) for job in jobs)
        return [item for item in all_ if item and item["value"] is not None]

    def number(self, metric: Metric, found: list[dict[str, Any]]) -> Entry:
        """One or more runs' metric as text: value [low, high], or mean (lowest–highest)."""
        values = [item["value"] for item in found]
        if not values:
            return Entry(NOTHING)
        made = Entry(self.text(fmean(values), metric), higher=_direction(found))
        if warned := [warning for item in found if (warning := item["definition"].get("warning"))]:
            self.warnings |= dict.fromkeys(warned)
            made.tail = "*"
        if len(values) > 1:
            made.tail += f" ({self.text(min(values), metric)}–{self.text(max(values), metric)})"
        elif self.study.intervals and found[0]["low"] is not None:
            made.tail += f" [{self.text(found[0]['low'], metric)}, {self.text(found[0]['high'], metric)}]"
        if len(self.sizes.get(metric, ())) > 1:
            made.tail += f", n {_range(item['n'] for item in found if item['n'])}"
        return made

    def text(self, value: float, metric: Metric) -> str:
        value = 100 * value if metric.percent else value
        if metric.digits is not None:
            return f"{value:z.{metric.digits}f}"
        if metric.percent:
            return f"{value:z.0f}" if self.study.join is not None else f"{value:z.1f}"
        return _short(value) if self.study.join is not None else summary.number(value)

    def references(self, metric: Metric, jobs: list[Job]) -> str:
        said = ""
        for reference in self.study.reference:
            if reference.metric == metric.metric and any(fits(reference, job) for job in jobs):
                self.unfit = [other for other in self.unfit if other is not reference]
                said += f" ({self.paper(reference.source)}: {self.text(reference.value, metric)})"
        return said

    def paper(self, source: str) -> str:
        return "paper" if len(self.sources) == 1 else f"paper {self.sources.index(source) + 1}"

    def mark(self, grid: dict[tuple[Place, Place], list[Entry]]) -> None:
        """Best and second best of each row or column, per metric, by the digits that are shown."""
        lines, others = (self.rows, self.columns) if self.study.best == "rows" else (self.columns, self.rows)
        for line in lines:
            for index in range(len(self.metrics)):
                pairs = [(line, other) if self.study.best == "rows" else (other, line) for other in others]
                _mark([grid[pair][index] for pair in pairs])

    def cells(self, entries: list[list[Entry]]) -> list[list[Entry]]:
        """Joined: one cell per column, where nothing at all is said once; else one per column and metric."""
        if self.study.join is None:
            return [[entry] for several in entries for entry in several]
        empty = [[Entry(text)] * len(self.metrics) for text in ("", MISSING)]
        return [several[:1] if several in empty else several for several in entries]

    def heads(self) -> list[Column]:
        names = [self.metric_head(metric) for metric in self.metrics]
        columns = [
            ", ".join(self.study.shown(value) for value in column if value is not None) or NOTHING * bool(column)
            for column in self.columns
        ]
        if self.study.join is not None:
            return [Column(name or "each") for name in columns]
        if len(names) == 1:
            return [Column(name or names[0]) for name in columns]
        return [Column(name, group) for group in columns for name in names]

    def metric_head(self, metric: Metric) -> str:
        found = self.found(metric, filter(self.has, self.plan.jobs))
        said = label(metric.label or metric.metric, _direction(found))
        if metric.variant in ("unedited", "random") and not metric.label:
            said = f"{metric.variant}: {said}"
        return f"{said}, %" if metric.percent else said

    def add_baseline(self, rows: list[Row], columns: list[Column]) -> None:
        """The unedited model: a column where only the rows tell unedited models apart, else a row."""
        study = self.study
        if _tells_apart(study.rows) and not _tells_apart(study.columns):
            for row, place in zip(rows, self.rows, strict=True):
                row.cells += self.cells([self.unedited(row=place)])
            names = [self.metric_head(metric) for metric in self.metrics if metric.metric in study.baseline]
            several = study.join is None and len(names) > 1
            columns += [Column(name, UNEDITED) for name in names] if several else [Column(UNEDITED)]
        else:
            entries = [self.unedited(column=place, blank=True) for place in self.columns]
            labels = [UNEDITED, *[""] * (len(study.rows) - 1)]
            rows.append(Row(labels, self.cells(entries)))
        self.notes.append("Unedited: the model without an edit, mean over the runs beside it.")

    def unedited(self, row: Place | None = None, column: Place | None = None, blank: bool = False) -> list[Entry]:
        """Metrics of the unedited model over the runs of a row or column; blank: metrics not asked for are empty."""
        jobs = [j for (r, c), several in self.jobs.items() if r == row or c == column for j in several if self.has(j)]
        entries = []
        for metric in self.metrics:
            found = self.found(replace(metric, variant=UNEDITED), jobs)
            values = [item["value"] for item in found]
            if metric.metric in self.study.baseline:
                missing = NOTHING if jobs else MISSING
                entries.append(Entry(self.text(fmean(values), metric) if values else missing))
            elif blank and self.study.join is None:
                entries.append(Entry(""))
        return entries

    def explain(self, grid: dict[tuple[Place, Place], list[Entry]]) -> None:
        """The sentences that say how to read the cells, as far as this table needs them."""
        study, entries = self.study, [entry for several in grid.values() for entry in several]
        if study.join is not None and len(self.metrics) > 1:
            self.notes.insert(0, f"Each cell: {', '.join(map(self.metric_head, self.metrics))}.")
        if any(entry.mark for entry in entries):
            line = study.best.removesuffix("s") if study.best else ""
            self.notes.append(f"Bold: the best of each {line}; underlined: the second best, by the digits shown.")
        if study.intervals:
            self.notes.append("[low, high]: 95 % interval of one run.")
        if alike := [f"{min(n)} ({self.metric_head(m)})" for m, n in self.sizes.items() if len(n) == 1]:
            self.notes.append(f"n of every value: {', '.join(alike)}.")
        if self.warnings:
            self.notes.append(f"*: {'; '.join(self.warnings)}: little can be read from the number.")
        if differ := repeated(self.jobs.values()):
            self.notes.append(f"Value (lowest–highest): mean and range over runs that differ in {', '.join(differ)}.")
        if any(entry.text == MISSING for entry in entries):
            self.notes.append(f"{MISSING}: not run yet.")
        there = {key for run in self.runs.values() for key in run.metrics}
        if there and (
            unknown := [m.metric for m in self.metrics if m.metric != DRAWN and (m.metric, m.variant) not in there]
        ):
            self.notes.append(f"{NOTHING}: no run that is there has {', '.join(unknown)} yet.")
        if any(entry.partial for entry in entries):
            self.notes.append(f"A number with {MISSING} behind it: some of its runs are missing or have no value.")
        self.notes += [f"{self.paper(source)}: {source}" for source in self.sources]
        self.check_references()
        self.notes += study.footnote

    def check_references(self) -> None:
        if self.unfit and not self.plan.given:
            where = ", ".join(f"{key}: {value}" for key, value in self.unfit[0].where.items())
            raise UserError(
                f"the reference where {{{where}}} in experiments/{self.plan.name}.yaml fits no cell of the table"
            )
        if self.unfit:  # the command may have left its cells out
            self.notes.append(f"{len(self.unfit)} of {len(self.study.reference)} references fit no cell of this table.")


def repeated(groups: Iterable[Sequence[Job]]) -> list[str]:
    """The overrides in which jobs of one group differ."""
    differ: dict[str, None] = {}
    for jobs in groups:
        settings = [dict(item.partition("=")[::2] for item in job.overrides) for job in jobs]
        differ |= {key: None for key in settings[0] if len({each.get(key) for each in settings}) > 1}
    return list(differ)


def fits(reference: Reference, job: Job) -> bool:
    return all(str(lookup(job.config, key)) == str(value) for key, value in reference.where.items())


def _mark(entries: list[Entry]) -> None:
    """Mark the best and the second best; a mean over a part of its runs takes no part: it may yet change."""
    shown = [entry for entry in entries if entry.text not in ("", MISSING, NOTHING) and not entry.partial]
    directions = {entry.higher for entry in shown}
    if len(shown) < 2 or len(directions) > 1 or None in directions:
        return
    order = sorted({float(entry.text) for entry in shown}, reverse=directions == {True})
    for entry in shown:
        rank = order.index(float(entry.text)) + 1
        entry.mark = rank if rank <= 2 else 0


def _direction(found: list[dict[str, Any]]) -> bool | None:
    """Whether higher is better, where all runs say the same."""
    said = {item["higher_is_better"] for item in found}
    return said.pop() if len(said) == 1 else None


def _tells_apart(keys: Sequence[str]) -> bool:
    return any(key.partition(".")[0] in UNEDITED_DEPENDS_ON for key in keys)


def _range(numbers: Iterable[int]) -> str:
    """ "64", or "12–64" of several."""
    found = sorted(set(numbers))
    return f"{found[0]}–{found[-1]}" if len(found) > 1 else "".join(map(str, found)) or NOTHING


def _short(value: float) -> str:
    """Two digits without a leading zero: .67, -.04, 1.0."""
    if abs(value) >= 10:
        return f"{value:.1f}"
    text = f"{value:z.2f}"
    return {"1.00": "1.0", "-1.00": "-1.0"}.get(text) or re.sub(r"^(-?)0\.", r"\1.", text)
