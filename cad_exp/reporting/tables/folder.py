"""Whatever runs lie below a folder, one row each, without a study: `python -m cad_exp tables FOLDER`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from cad_exp.evaluation.variants import DICTIONARIES, SOURCES
from cad_exp.reporting.tables.collect import Run, changes, read_all
from cad_exp.reporting.tables.plan import lookup
from cad_exp.reporting.tables.write import markdown_table
from cad_exp.reporting.wording import drawn_instead, number
from cad_exp.utils.errors import UserError
from cad_exp.utils.text import markdown

FACTS, EDIT = ("concept", "granularity", "objective", "estimator", "edit", "seed"), ("factor", "ratio", "count")
KEYS = (*FACTS[:-1], *EDIT, "seed")
DETAILS = ("nudity_detections@", "concept_rate@", "drawn@")
DRAWN = "drawn instead"
READ = (*SOURCES, *DICTIONARIES)  # of tasks without an edit
_SCALARS = (str, int, float, type(None))
NOTE = (
    "unedited → edited (random edit of equal budget), change edited less unedited [95 % paired interval], n images; "
    "*: most images show nothing or nothing of the world; --csv adds all intervals, single labels and thresholds"
)


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
            **changes(metric),
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

    Single labels, thresholds (DETAILS) and timesteps of probes are left to --csv: they are twenty columns.
    """
    keys = [key for key in KEYS if table[key].notna().any()]
    every = table["name"].dropna().unique()
    names = [name for name in every if not name.startswith(DETAILS) and name.count("@") < 2]
    names += [DRAWN] if any(name.startswith("drawn@") for name in every) else []
    rows = [_row(own, keys, names) for _, own in table.groupby("run", sort=False)]
    return markdown_table([*keys, *map(markdown, names)], rows)


def _row(own: pd.DataFrame, keys: list[str], names: list[str]) -> list[str]:
    first = own.iloc[0]
    texts = [
        "-" if pd.isna(value) else f"{value:g}" if isinstance(value, float) else markdown(value)
        for value in first[keys]
    ]
    texts[0] += "" if first["complete"] else " (unfinished)"
    cells = {name: _cell(own[own["name"] == name].set_index("variant")) for name in names if name != DRAWN}
    if DRAWN in names:
        rows = own[own["name"].notna()].to_dict("records")
        cells[DRAWN] = drawn_instead([{str(column): value for column, value in row.items()} for row in rows])
    return texts + [cells[name] for name in names]


def _cell(rows: pd.DataFrame) -> str:
    if rows.empty:
        return ""
    sizes = rows["n"][rows["value"].notna()].dropna()
    n = f", n {'/'.join(dict.fromkeys(f'{size:.0f}' for size in sizes))}" if len(sizes) else ""
    unedited, edited, random, attribution = (
        number(rows["value"].get(variant)) + "*" * int(pd.notna(rows["warning"].get(variant)))
        for variant in ("unedited", "edited", "random", "attribution")
    )
    if read := [f"{number(rows['value'][source])} ({source})" for source in READ if source in rows.index]:
        return ", ".join(read) + n
    if "attribution" in rows.index:
        return attribution + n
    change = rows.loc["edited"].to_dict() if "edited" in rows.index else {}
    if pd.isna(change.get("change_unedited")):
        return f"{unedited} → {edited} ({random}){n}"
    value, low, high = (number(change[f"change_unedited{end}"]) for end in ("", "_low", "_high"))
    return f"{unedited} → {edited} ({random}), change {value} [{low}, {high}]{n}"
