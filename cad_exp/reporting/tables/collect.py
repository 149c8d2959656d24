"""The results.json files below some folders, by the settings that made them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cad_exp.reporting.results import load_results
from cad_exp.reporting.run_folder import MARK
from cad_exp.utils.errors import UserError

Metrics = dict[tuple[str, str], dict[str, Any]]  # by name and variant


@dataclass(frozen=True)
class Run:
    """One results.json: where it lies, its section `run`, its metrics, and when it was written (seconds)."""

    folder: Path
    run: dict[str, Any]
    metrics: Metrics
    written: float

    @property
    def complete(self) -> bool:
        """Whether the run has finished."""
        return bool(self.run.get("complete"))


@dataclass
class Found:
    """Of each config_hash the newest complete run, and the newest of those that did not finish.

    skipped: files that are no results of this cad_exp, or cannot be read, and why.
    """

    runs: dict[str, Run] = field(default_factory=dict)
    unfinished: dict[str, Run] = field(default_factory=dict)
    skipped: dict[Path, str] = field(default_factory=dict)


def collect(folders: Iterable[str | Path]) -> Found:
    """All results below the folders, which may come from several machines. UserError for a folder that is not there."""
    found = Found()
    runs, found.skipped = read_all(folders)
    for run in sorted(runs, key=lambda run: run.written):
        (found.runs if run.complete else found.unfinished)[run.run["config_hash"]] = run
    return found


def read_all(folders: Iterable[str | Path]) -> tuple[list[Run], dict[Path, str]]:
    """(every run below the folders, in the order of their paths; the results.json that are none, each with why)."""
    runs: list[Run] = []
    skipped: dict[Path, str] = {}
    places = [Path(folder) for folder in folders]
    for folder in places:
        if not os.path.isdir(folder):  # Path.is_dir raises for a name that is too long
            what = f"'{folder}' is a file and no folder" if os.path.exists(folder) else f"there is no folder '{folder}'"
            raise UserError(f"{what}: give one that holds the results of runs")
    for path in sorted({path for folder in places for path in folder.rglob("results.json")}):
        if MARK in path.parts and (path.parents[2] / path.name).is_file():
            continue  # an attempt at a run whose finished results are there
        try:
            runs.append(_read(path))
        except UserError as error:
            skipped[path] = str(error)
    return runs, skipped


def changes(metric: dict[str, Any]) -> dict[str, Any]:
    """Return a metric's paired changes and its warning as columns; empty where there are none."""
    columns: dict[str, Any] = {}
    for other in ("unedited", "random"):
        change = (metric.get("changes") or {}).get(other) or {}
        ends = {"": "value", "_low": "low", "_high": "high"}
        columns |= {f"change_{other}{end}": change.get(key) for end, key in ends.items()}
    return columns | {"warning": (metric.get("definition") or {}).get("warning")}


def _read(path: Path) -> Run:
    """One run. UserError for a file that is no results.json, and for one that does not say what ran."""
    content = load_results(path.parent)
    run = content["run"]
    if not isinstance(run.get("config_hash"), str) or not isinstance(run.get("config"), dict):
        raise UserError(f"{path} does not say what ran")
    metrics = {(metric["name"], metric["variant"]): metric for metric in content["metrics"]}
    folder = path.parents[2] if MARK in path.parts else path.parent
    return Run(folder, run, metrics, path.stat().st_mtime)
