"""The command line: `python -m cad_exp tables experiment=fidelity`, or a folder of runs."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from cad_exp.config import options
from cad_exp.config.arguments import Parser, WrongFlag, named_path
from cad_exp.reporting import summary
from cad_exp.utils import console, process
from cad_exp.utils.errors import UserError
from cad_exp.utils.text import cell, line

if TYPE_CHECKING:
    from cad_exp.reporting.tables.collect import Found
    from cad_exp.reporting.tables.plan import Plan
    from cad_exp.reporting.tables.table import Table

HELP = """\
Builds the table of a study from the results.json files of its runs; nothing is computed again.

  python -m cad_exp tables experiment=fidelity                       from outputs/, into outputs/tables/fidelity
  python -m cad_exp tables experiment=fidelity concept=church,tench  overrides as the sweep was given them
  python -m cad_exp tables experiment=fidelity --from A B            the results of several machines
  python -m cad_exp tables FOLDER                                    any runs: one row each, without a study

Cells of runs that are missing show a dot; below the table stand the commands that make them. How the table of a study
looks is said in its file in conf/experiment/, in the section study: (docs/reference/tables.md)."""
OUTPUTS = Path("outputs")
NAMED = 5  # of the files that are left out


def parser() -> argparse.ArgumentParser:
    """Return what reads the command line."""
    made = Parser("python -m cad_exp tables", description=HELP, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("what", nargs="*", help="experiment=NAME and overrides, or one folder")
    made.add_argument(
        "--from", dest="sources", nargs="+", action="extend", metavar="FOLDER", help="where the runs lie (outputs)"
    )
    made.add_argument("--to", type=named_path, metavar="FOLDER", help="where the files go (outputs/tables/NAME)")
    made.add_argument("--csv", action="store_true", help="print every number as CSV, not the table as Markdown")
    made.add_argument(
        "--config-dir", "-cd", type=named_path, action="append", default=[], help="your own options, as for a run"
    )
    made.add_argument(
        "-m", "--multirun", action="store_true", help="nothing: so that a sweep's arguments can be pasted"
    )
    return made


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; the exit code is 0, 1 for an error or a table without any number, 2 for a wrong flag."""
    try:
        return build(parser().parse_intermixed_args(arguments))
    except UserError as error:
        console.error(str(error))
        return process.MISUSED if isinstance(error, WrongFlag) else process.FAILED


def build(given: argparse.Namespace) -> int:
    """Do what the parsed arguments ask for; UserError where they make no sense."""
    # People write `--from A experiment=NAME`: what names a setting is no folder, unless there is one of that name.
    sources = given.sources or []
    places = [name for name in sources if "=" not in name or os.path.exists(name)]
    overrides = [*given.what, *(name for name in sources if name not in places)]
    if len(overrides) == 1 and ("=" not in overrides[0] or os.path.isdir(overrides[0])):
        if given.sources or given.to:
            raise UserError("a folder alone is shown as it is: --from and --to belong to experiment=NAME")
        return any_runs(named_path(overrides[0]), given.csv)
    folders = [named_path(name) for name in places] or [OUTPUTS]
    return study(overrides, folders, given.to, [*given.config_dir, *options.installed()], given.csv)


def any_runs(folder: Path, csv: bool) -> int:
    """Print whatever runs lie below a folder as one table."""
    from cad_exp.reporting.tables.folder import NOTE, collect, summary

    table, skipped = collect(folder)
    console.page(table.map(cell).to_csv(index=False) if csv else f"{summary(table)}\n\n{NOTE}")
    _tell_skipped(skipped)
    return 0


def study(overrides: list[str], folders: list[Path], to: Path | None, config_folders: list[Path], csv: bool) -> int:
    """Build the table of a study, print it, and write it as Markdown, HTML, LaTeX, CSV and picture."""
    from cad_exp.reporting.tables import write
    from cad_exp.reporting.tables.collect import Found, collect
    from cad_exp.reporting.tables.metrics import found_runs
    from cad_exp.reporting.tables.origin import origin
    from cad_exp.reporting.tables.plan import plan

    # Before the first run of all there is no outputs/, and nothing is found.
    found = Found() if folders == [OUTPUTS] and not OUTPUTS.exists() else collect(folders)
    some = bool(found.runs or found.unfinished)
    made = plan(overrides, config_folders, None if some else 1)
    table, numbers = _laid_out(made, found)
    if len(table.missing) >= len(made.jobs):  # a table of dots says nothing
        _tell_skipped(found.skipped)
        return _nothing(made)
    from cad_exp.reporting.html import place, study_page  # pandas: only where there is something to show

    facts = origin(made, found_runs(made, found), table.metrics)
    page = write.markdown(made, table, facts, found)
    with write.folder(to or OUTPUTS / "tables" / made.name, made.name) as folder:
        place.check(folder / f"{made.name}.html")
        # Before anything is saved: an axis that no run has is an error.
        picture = _drawn(made, found, folder / f"{made.name}.png")
        places: dict[str, Path | str] = {"table": write.save(page, folder / f"{made.name}.md")}
        with console.harmless("the page of the study"):
            places["page"] = study_page.write(made, table, facts, found, folder / f"{made.name}.html")
        places["LaTeX"] = write.save(write.latex(made, table, facts), folder / f"{made.name}.tex")
        places["numbers"] = write.save(numbers, folder / f"{made.name}.csv")
    places |= {"picture": picture} if picture else {}
    console.page(numbers if csv else page, end="")
    if not csv:
        summary.show_places(places)
    _tell_skipped(found.skipped)
    return 0


def _nothing(made: Plan) -> int:
    """Say that no run of a study is there, and what makes them; the exit code."""
    console.error(f"none of the {made.planned} runs of experiment={made.name} is there: {made.sweep}")
    return 1


def _laid_out(made: Plan, found: Found) -> tuple[Table, str]:
    """Return the table of a study, and every number behind it as CSV."""
    from cad_exp.reporting.tables import layout, write
    from cad_exp.reporting.tables.study import OWN

    if made.study.picture in OWN:
        from cad_exp.reporting.tables import localisation

        return localisation.lay_out(made, found), localisation.long_form(made, found)
    table = layout.lay_out(made, found)
    return table, write.long_form(made, table, found)


def _drawn(made: Plan, found: Found, path: Path) -> Path | None:
    """Draw the picture of a study, where it has one and there is something to show; matplotlib only then."""
    if made.study.picture == "pareto":
        from cad_exp.reporting.tables.pareto import draw
    elif made.study.picture:
        from cad_exp.reporting.tables.localisation_figure import draw
    else:
        return None
    with console.harmless("the picture", passes=(UserError,)):
        return draw(made, found, path)
    return None


def _tell_skipped(skipped: dict[Path, str]) -> None:
    """Print one line that names what was left out, and why."""
    if skipped:
        more = f"; and {len(skipped) - NAMED} more" if len(skipped) > NAMED else ""
        console.say(f"left out: {'; '.join(map(line, list(skipped.values())[:NAMED]))}{more}", stderr=True)
