"""The sentences below a table that say how to read it, as far as it needs them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cad_exp.reporting.tables.cells import Cells
from cad_exp.reporting.tables.metrics import DRAWN
from cad_exp.reporting.tables.places import repeated
from cad_exp.reporting.tables.plan import Job, Plan
from cad_exp.reporting.tables.table import MISSING, NOTHING, Entry
from cad_exp.utils.errors import UserError


def notes_of(plan: Plan, cells: Cells, entries: list[Entry], groups: Iterable[Sequence[Job]]) -> list[str]:
    """Say how to read the entries of a table. groups: the jobs of each cell.

    Raises UserError for a reference that fits no cell.
    """
    study, notes = plan.study, []
    if study.join is not None and len(cells.metrics) > 1:
        notes.append(f"Each cell: {', '.join(map(cells.head, cells.metrics))}.")
    if study.baseline:
        notes.append("Unedited: the model without an edit, mean over the runs beside it.")
    notes += _on_marks(study.best, study.intervals, cells, entries)
    if differ := repeated(groups):
        notes.append(f"Value (lowest–highest): mean and range over runs that differ in {', '.join(differ)}.")
    notes += _on_gaps(cells, entries)
    notes += [f"{cells.paper(source)}: {source}" for source in cells.sources]
    return [*notes, *_on_references(plan, cells), *study.footnote]


def _on_marks(best: str | None, intervals: bool, cells: Cells, entries: list[Entry]) -> list[str]:
    """Return what bold, brackets and stars mean, and of how many images every value is."""
    notes = []
    if any(entry.mark for entry in entries):
        line = best.removesuffix("s") if best else ""
        notes.append(f"Bold: the best of each {line}; underlined: the second best, by the digits shown.")
    if intervals:
        notes.append("[low, high]: 95 % interval of one run.")
    if alike := [f"{min(n)} ({cells.head(m)})" for m, n in cells.sizes.items() if len(n) == 1]:
        notes.append(f"n of every value: {', '.join(alike)}.")
    if cells.warnings:
        notes.append(f"*: {'; '.join(cells.warnings)}: little can be read from the number.")
    return notes


def _on_gaps(cells: Cells, entries: list[Entry]) -> list[str]:
    """Return what is not there yet."""
    notes = []
    if any(entry.text == MISSING for entry in entries):
        notes.append(f"{MISSING}: not run yet.")
    there = {key for run in cells.runs.values() for key in run.metrics}
    unknown = [m.metric for m in cells.metrics if m.metric != DRAWN and (m.metric, m.variant) not in there]
    if there and unknown:
        notes.append(f"{NOTHING}: no run that is there has {', '.join(unknown)} yet.")
    if any(entry.partial for entry in entries):
        notes.append(f"A number with {MISSING} behind it: some of its runs are missing or have no value.")
    return notes


def _on_references(plan: Plan, cells: Cells) -> list[str]:
    """How many published values found no cell. UserError where the command left no cell out."""
    if cells.unfit and not plan.given:
        where = ", ".join(f"{key}: {value}" for key, value in cells.unfit[0].where.items())
        file = f"conf/experiment/{plan.name}.yaml"
        raise UserError(f"the reference where {{{where}}} in {file} fits no cell of the table")
    if cells.unfit:  # the command may have left its cells out
        return [f"{len(cells.unfit)} of {len(plan.study.reference)} references fit no cell of this table."]
    return []
