"""The report of a sweep, or of any runs below a folder: one row a run, each a link to its own report."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from cad_exp.evaluation import lights
from cad_exp.evaluation.lights import Light
from cad_exp.reporting import run_folder
from cad_exp.reporting.html import place
from cad_exp.reporting.html.render import page
from cad_exp.reporting.html.verdicts import SIGNS, WORDS
from cad_exp.reporting.results import REPORT
from cad_exp.reporting.tables.collect import Run, read_all
from cad_exp.reporting.tables.plan import lookup
from cad_exp.reporting.wording import label
from cad_exp.utils.errors import UserError
from cad_exp.utils.io import read_json

FACTS: tuple[str, ...] = ("task", "model", "concept", "granularity", "objective", "estimator", "edit")
FACTS += ("images", "analysis", "probe", "sae", "seed")
SETTINGS = ("edit.factor", "edit.ratio", "edit.count", "evaluation.seed")
HEADLINES = ("concept_rate", "retention_mean", "retention_worst", "perceptual_distance", "fid", "clip_score")
MOST = 8  # columns of metrics
FAILED = "it did not finish"


@dataclass(frozen=True)
class Cell:
    """One metric of a run. value: to sort by; text: value with its interval."""

    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Row:
    """One run. link: to its report, or to its folder; facts: what tells it from the others."""

    name: str
    link: str
    facts: dict[str, str]
    cells: dict[str, Cell]
    lights: list[Light]
    complete: bool


@dataclass(frozen=True)
class Runs:
    """All runs below a folder. same: what all share; missing: folder -> (error, command); skipped: no results."""

    title: str
    rows: list[Row]
    facts: list[str]
    metrics: dict[str, str]
    same: dict[str, str]
    missing: dict[str, tuple[str, str]] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)


def write(folder: Path, path: Path | None = None) -> Path:
    """Write the report of the runs below a folder; `report.html` in it by default.

    UserError where there are no runs, or where the place is not ours: only a sweep's folder is.
    """
    if path is None and not run_folder.swept(folder):
        raise UserError(
            f"'{folder}' is neither a run's folder nor a sweep's: say where the report goes, --to FILE.html"
        )
    path = path or folder / REPORT
    place.check(path)
    return place.save(page("runs.html", runs=collect(folder, path), signs=SIGNS, words=WORDS), path)


def collect(folder: Path, path: Path) -> Runs:
    """Return the runs below a folder. path: of the page, from which links lead. UserError where there are none."""
    found, skipped = read_all([folder])
    missing = failures(folder)
    if not found and not missing:
        raise UserError(f"there are no results below '{folder}': give the folder of a run or of a sweep")
    told = [_facts(run) for run in found]
    differing = [key for key in (*FACTS, *SETTINGS) if len({each.get(key) for each in told}) > 1]
    same = {key: value for key, value in (told[0] if told else {}).items() if key not in differing and value}
    names = headlines(found)
    rows = [_row(run, own, folder, path, differing, names) for run, own in zip(found, told, strict=True)]
    kept = {name: label(name) for name in names}
    left = [str(place.relative_to(folder)) for place in skipped]
    return Runs(folder.resolve().name, rows, differing, kept, same, missing, left)


def failures(folder: Path) -> dict[str, tuple[str, str]]:
    """Return the runs of a sweep that failed, or did not finish: name of the folder -> (error, command)."""
    found = {}
    for mark in sorted(folder.glob(f"*/{run_folder.MARK}")):
        told = read_json(mark.parent / run_folder.ERROR)
        if (mark.parent / run_folder.ERROR).exists():
            content = told or {}
            found[mark.parent.name] = (str(content.get("error") or FAILED), str(content.get("command") or ""))
    return found


def headlines(found: Iterable[Run]) -> list[str]:
    """Return the metrics that stand in the table: those of an edit's images, else the first that the runs have."""
    names = list(dict.fromkeys(name for run in found for name, _ in run.metrics))
    own = [name for name in HEADLINES if name in names]
    return own or [name for name in names if name.count("@") < 2][:MOST]


def link(folder: Path, path: Path) -> str:
    """Return the address of a run's report as the page at `path` names it; of its folder where it has none."""
    target = folder / REPORT if (folder / REPORT).is_file() else folder
    return quote(os.path.relpath(target.resolve(), path.resolve().parent).replace(os.sep, "/"))


def _facts(run: Run) -> dict[str, str]:
    facts: dict[str, Any] = {key: run.run.get(key) for key in FACTS}
    facts |= {key: lookup(run.run["config"], key) for key in SETTINGS}
    return {key: "" if value is None else str(value) for key, value in facts.items()}


def _row(run: Run, told: dict[str, str], folder: Path, path: Path, differing: list[str], names: list[str]) -> Row:
    cells = {name: _cell(run, name) for name in names}
    shown = lights.of(run.metrics.values()) if run.run.get("task", "attribute") == "attribute" and run.metrics else []
    name = str(run.folder.relative_to(folder)) if run.folder.is_relative_to(folder) else run.folder.name
    facts = {key: told.get(key, "") for key in differing}
    return Row(name, link(run.folder, path), facts, cells, shown, run.complete)


def _cell(run: Run, name: str) -> Cell:
    """Return a metric of the edited images; where there are none, of the first variant that has it."""
    found = run.metrics.get((name, "edited"))
    if found is None:
        found = next((each for (other, _), each in run.metrics.items() if other == name), None)
    return Cell(None, None, None) if found is None else Cell(found["value"], found["low"], found["high"])
