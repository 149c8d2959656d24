"""Results of many runs as one table: `python -m cad_exp.table outputs/multirun/...`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pandas as pd

from . import terminal
from .errors import UserError
from .results import VARIANTS, load_results


def collect(folder: str | Path) -> pd.DataFrame:
    """One row per metric and variant of every run below `folder`, with what the run was.

    Raises UserError if no run lies there.
    """
    rows = []
    for path in sorted(Path(folder).rglob("results.json")):
        content = load_results(path.parent)
        run = {key: content["run"].get(key) for key in ("concept", "granularity", "objective", "edit", "seed")}
        rows += [
            {
                **run,
                "run": str(path.parent.relative_to(folder)),
                **{key: value for key, value in metric.items() if key != "definition"},
            }
            for metric in content["metrics"]
        ]
    if not rows:
        raise UserError(f"there are no results below '{folder}': give the folder of a run or of a sweep")
    return pd.DataFrame(rows)


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """One row per run, one column per metric: unedited → edited (random), or the one value of the scores."""
    keys = ["run", "concept", "granularity", "objective", "edit", "seed"]
    wide = table.pivot_table(index=[*keys, "name"], columns="variant", values="value", sort=False)
    wide = wide.reindex(columns=VARIANTS)
    cells = wide.apply(_cell, axis=1)
    return cells.unstack("name").reindex(columns=table["name"].unique()).reset_index().drop(columns="run")


def _cell(row: pd.Series) -> str:
    unedited, edited, random, attribution = (terminal.number(row[variant]) for variant in VARIANTS)
    return attribution if pd.notna(row["attribution"]) else f"{unedited} → {edited} ({random})"


def markdown(table: pd.DataFrame) -> str:
    lines = [list(table.columns), ["---"] * len(table.columns), *table.fillna("").astype(str).to_numpy().tolist()]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m cad_exp.table", description=__doc__)
    parser.add_argument("folder", type=Path, help="the folder of a run or of a sweep")
    parser.add_argument("--csv", action="store_true", help="every metric with its interval, as CSV")
    given = parser.parse_args(arguments)
    try:
        table = collect(given.folder)
    except UserError as error:
        terminal.error(str(error))
        return 1
    print(
        table.to_csv(index=False)
        if given.csv
        else markdown(summary(table)) + "\n\nunedited → edited (random edit of equal budget)"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
