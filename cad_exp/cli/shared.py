"""The command `python -m cad_exp shared`: which components the concepts of several runs have in common."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cad_exp.config.arguments import Parser, WrongFlag, named_path
from cad_exp.utils import console, process
from cad_exp.utils.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from cad_exp.interventions.spaces import ComponentSpace
    from cad_exp.reporting.tables.collect import Run

HELP = """\
Compares the scores of several concepts, component by component; nothing is computed again.

  python -m cad_exp shared outputs/multirun/SWEEP                 every run of a sweep over concepts
  python -m cad_exp shared outputs/RUN outputs/OTHER              two runs, or more
  python -m cad_exp shared outputs/multirun/SWEEP --share 0.01    only the strongest hundredth of the components

The runs need scores of the same components: one model and granularity. Of runs with the same concept the newest
counts. What the columns mean: docs/guides/interactions.md."""
COMPONENTS, SCORED_BY = ("model", "granularity"), ("objective", "estimator")
SCORES = "attribution.safetensors"
SHOWN = 12  # rows of a table
PAIR = ("one", "other", "correlation", "shared", "by_layers", "chance", "deviations", "opposed")


def parser() -> Parser:
    """Return what reads the command line."""
    made = Parser("python -m cad_exp shared", description=HELP, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("folders", type=named_path, nargs="+", metavar="FOLDER", help="of runs, or of a sweep")
    made.add_argument("--share", type=float, default=0.05, help="of the components that are compared (0.05)")
    made.add_argument("--csv", action="store_true", help="print every pair of concepts as CSV")
    return made


def main(arguments: list[str] | None = None) -> int:
    """Run the command line: 0, 1 for runs that cannot be compared, 2 for a wrong flag."""
    try:
        given = parser().parse_args(arguments)
        show(given.folders, given.share, given.csv)
    except UserError as error:
        console.error(str(error))
        return process.MISUSED if isinstance(error, WrongFlag) else process.FAILED
    return 0


def show(folders: Iterable[Path], share: float, csv: bool) -> None:
    """Print the pairs of concepts, and the components that serve several. UserError where runs cannot be compared."""
    if not 0 < share <= 1:
        raise WrongFlag(f"--share {share:g} is no share of the components: above 0, at most 1")
    newest = comparable(folders)
    from cad_exp.evaluation.shared import components_of_several, pairs_of_concepts, told  # torch: the runs are there

    scores, space, names = read(newest)
    pairs = pairs_of_concepts(scores, space.groups("layer").numpy(), share)
    if csv:
        console.page(pairs.to_csv(index=False), end="")
        return
    several = components_of_several(scores, names, share)
    _show_pairs(pairs)
    if names is not None:
        _show_components(several)
    console.say(told(pairs, several, len(scores), share))


def comparable(folders: Iterable[Path]) -> dict[str, Run]:
    """Return the newest run with scores of each concept. UserError where they cannot be compared. No torch."""
    runs = [run for run in _runs(folders) if (run.folder / SCORES).is_file()]
    if found := _differing(runs, COMPONENTS):
        raise UserError(
            f"the scores of these runs are of different components ({found}): give runs that are alike in it"
        )
    if found := _differing(runs, SCORED_BY):
        console.say(
            f"these scores are not of one kind ({found}), and concepts may differ by that alone", style="yellow"
        )
    newest = {run.run["concept"]: run for run in sorted(runs, key=lambda run: run.written)}
    if len(newest) < 2:
        told = ", ".join(newest) or "none"
        raise UserError(f"scores of two concepts or more are compared, and here are those of: {told}")
    return newest


def read(newest: dict[str, Run]) -> tuple[dict[str, np.ndarray], ComponentSpace, list[str] | None]:
    """Return the scores of each concept, the components that they are of, and the names of these, if they have any."""
    from cad_exp.attribution.attribute import Attribution
    from cad_exp.reporting.figures.layers import short_name

    scores, space, names = {}, None, None
    for concept, run in sorted(newest.items()):
        granularity = run.run["config"]["granularity"]
        scored = Attribution.load(run.folder).narrow(granularity["name"], granularity.get("kinds"))
        own = scored.space(granularity["name"])
        if space is not None and [str(tap) for tap in own.taps] != [str(tap) for tap in space.taps]:
            raise UserError(f"the run in '{run.folder}' has scores of other components than those before it")
        rows = scored.tables[granularity["name"]]
        scores[concept], space = scored.scores[granularity["name"]].numpy(), own
        places = zip(rows["module"], rows["block"], rows["name"], strict=True)
        short = [name.replace(block, short_name(module, block), 1) for module, block, name in places]
        names = short if len(rows) == len(scores[concept]) else None
    assert space is not None
    return scores, space, names


def _runs(folders: Iterable[Path]) -> list[Run]:
    """Return the finished runs below the folders. UserError for a folder without any."""
    from cad_exp.reporting.tables.collect import read_all

    runs, skipped = read_all(map(Path.expanduser, folders))
    for why in skipped.values():
        console.say(f"left out: {why}", stderr=True)
    return [run for run in runs if run.complete]


def _differing(runs: Sequence[Run], keys: Iterable[str]) -> str:
    """Return which of these settings differ between the runs, and their values; empty where none does."""
    values = {key: sorted({str(run.run.get(key)) for run in runs}) for key in keys}
    return "; ".join(f"{key}: {', '.join(each)}" for key, each in values.items() if len(each) > 1)


def _show_pairs(rows: pd.DataFrame) -> None:
    from rich.markup import escape
    from rich.table import Table

    of = f" ({SHOWN} of {len(rows)})" if len(rows) > SHOWN else ""
    table = Table(title=f"pairs of concepts{of}", title_justify="left", header_style="bold")
    for column in PAIR:
        words = column in PAIR[:2]
        table.add_column(column.replace("_", " "), justify="left" if words else "right", no_wrap=words)
    for row in rows.head(SHOWN)[list(PAIR)].itertuples(index=False):
        shown = (f"{value:.2f}" if isinstance(value, float) else str(value) for value in row)
        table.add_row(*(escape(console.clean(value)) for value in shown))
    console.console().print(table)


def _show_components(rows: pd.DataFrame) -> None:
    if len(rows):
        console.say(f"components that serve most concepts ({min(SHOWN, len(rows))} of {len(rows)} that serve several)")
    for row in rows.head(SHOWN).to_dict("records"):
        against = f"; suppresses {row['suppresses']}" if row["suppresses"] else ""
        console.say(f"  {row['number']}  {row['name']}: {row['concepts']}{against}")
