"""Whatever runs lie below a folder, one row each, without a study: `python -m cad_exp.tables FOLDER`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from cad_exp import terminal
from cad_exp.errors import UserError
from cad_exp.results import VARIANTS
from cad_exp.tables.collect import Run, read_all
from cad_exp.tables.plan import lookup
from cad_exp.tables.write import markdown_table
from cad_exp.text import markdown

FACTS, EDIT = ("concept", "granularity", "objective", "estimator", "edit", "seed"), ("factor", "ratio", "count")
KEYS = (*FACTS[:-1], *EDIT, "seed")
DETAILS = ("nudity_detections@", "concept_rate@")
_SCALARS = (str, int, float, type(None))
NOTE = "unedited → edited (random edit of equal budget); --csv adds intervals, n, single labels and further thresholds"


def collect(folder: str | Path) -> tuple[pd.DataFrame, dict[Path, str]]:
    """(one row per metric and variant of every run below `folder`, with what the run was; the files skipped, and why).

    A run without a metric has one row, without name and value. Raises UserError if no run lies there.
    """
    runs, skipped = read_all([folder])
    if not runs:
        raise UserError(f"there are no results below '{folder}': give the folder of a run or of a sweep")
    rows = [
        {
            **_facts(run),
            "complete": run.complete,
            "run": str(run.folder.relative_to(folder)),
            **{key: metric.get(key) for key in ("name", "variant", "value", "low", "high", "n", "higher_is_better")},
        }
        for run in runs
        for metric in run.metrics.values() or [{}]
    ]
    return pd.DataFrame(rows), skipped


def _facts(run: Run) -> dict[str, Any]:
    facts = {key: run.run.get(key) for key in FACTS} | {key: lookup(run.run["config"], f"edit.{key}") for key in EDIT}
    return {key: value if isinstance(value := facts[key], _SCALARS) else str(value) for key in KEYS}


def summary(table: pd.DataFrame) -> str:
    """Markdown: one row per run, one column per metric: unedited → edited (random), or the one value of the scores.

    Single labels and further thresholds of what is detected (DETAILS) are left to --csv: they are twenty columns.
    """
    keys = [key for key in KEYS if table[key].notna().any()]
    names = [name for name in table["name"].dropna().unique() if not name.startswith(DETAILS)]
    rows = [_row(own, keys, names) for _, own in table.groupby("run", sort=False)]
    return markdown_table([*keys, *map(markdown, names)], rows)


def _row(own: pd.DataFrame, keys: list[str], names: list[str]) -> list[str]:
    first = own.iloc[0]
    texts = [
        "-" if pd.isna(value) else f"{value:g}" if isinstance(value, float) else markdown(value)
        for value in first[keys]
    ]
    texts[0] += "" if first["complete"] else " (unfinished)"
    return texts + [_cell(own[own["name"] == name].set_index("variant")["value"]) for name in names]


def _cell(values: pd.Series) -> str:
    unedited, edited, random, attribution = (terminal.number(values.get(variant)) for variant in VARIANTS)
    if "attribution" in values:
        return attribution
    return f"{unedited} → {edited} ({random})" if len(values) else ""
