"""Whatever runs lie below a folder, one row each, without a study: `python -m cad_exp.tables FOLDER`."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from cad_exp import terminal
from cad_exp.errors import UserError
from cad_exp.results import VARIANTS
from cad_exp.tables.collect import read_all
from cad_exp.tables.write import markdown_table

KEYS = ("concept", "granularity", "objective", "edit", "seed")
NOTE = "unedited → edited (random edit of equal budget)"


def collect(folder: str | Path) -> tuple[pd.DataFrame, int]:
    """(one row per metric and variant of every run below `folder`, with what the run was; how many files were skipped).

    Raises UserError if no run lies there.
    """
    runs, skipped = read_all([folder])
    rows = [
        {
            **{key: run.run.get(key) for key in KEYS},
            "run": str(run.folder.relative_to(folder)),
            **{key: value for key, value in metric.items() if key != "definition"},
        }
        for run in runs
        for metric in run.metrics.values()
    ]
    if not rows:
        raise UserError(f"there are no results below '{folder}': give the folder of a run or of a sweep")
    return pd.DataFrame(rows), len(skipped)


def summary(table: pd.DataFrame) -> str:
    """Markdown: one row per run, one column per metric: unedited → edited (random), or the one value of the scores."""
    wide = table.pivot_table(index=["run", *KEYS, "name"], columns="variant", values="value", sort=False)
    cells = wide.reindex(columns=VARIANTS).apply(_cell, axis=1)
    shown = cells.unstack("name").reindex(columns=table["name"].unique()).reset_index().drop(columns="run")
    return markdown_table(list(shown.columns), shown.fillna("").astype(str).to_numpy().tolist())


def _cell(row: pd.Series) -> str:
    unedited, edited, random, attribution = (terminal.number(row[variant]) for variant in VARIANTS)
    return attribution if pd.notna(row["attribution"]) else f"{unedited} → {edited} ({random})"
