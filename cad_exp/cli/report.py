"""The command `python -m cad_exp report`: report.html of a run or of a sweep, from its folder alone."""

from __future__ import annotations

import argparse
from pathlib import Path

from cad_exp.config.arguments import Parser, WrongFlag, named_path
from cad_exp.utils import console, process
from cad_exp.utils.errors import UserError

HELP = """\
Writes report.html, one file to send or to open in a browser. Nothing is computed again.

  python -m cad_exp report outputs/RUN                    a run: outputs/RUN/report.html
  python -m cad_exp report outputs/multirun/SWEEP         a sweep: a table whose rows lead to the reports of its runs
  python -m cad_exp report FOLDER --to page.html          any run, or any folder with runs, into a file of your choice

Every run writes its report at its end. The command makes it again, for example with a newer cad_exp. A study's page is
made by `python -m cad_exp tables experiment=NAME`. How to read a report: docs/guides/report.md."""


def parser() -> Parser:
    """Return what reads the command line."""
    made = Parser("python -m cad_exp report", description=HELP, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("folder", type=named_path, help="of a finished run, or of a sweep")
    made.add_argument("--to", type=named_path, metavar="FILE", help="where the page goes (report.html in the folder)")
    return made


def main(arguments: list[str] | None = None) -> int:
    """Run the command line: 0, 1 for a folder without results, a damaged one or one that is not ours, 2 for a flag."""
    try:
        given = parser().parse_args(arguments)
        console.say(str(write(given.folder.expanduser(), given.to)))
    except UserError as error:
        console.error(str(error))
        return process.MISUSED if isinstance(error, WrongFlag) else process.FAILED
    return 0


def write(folder: Path, to: Path | None) -> Path:
    """Write the report of what lies in the folder; returns its path."""
    from cad_exp.reporting.html import run_page, runs_page
    from cad_exp.reporting.run_folder import MARK, swept
    from cad_exp.utils.paths import find_folder

    find_folder(str(folder), "FOLDER")
    if to is not None and to.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"--to {to} is no name of a page: give one that ends in .html")
    if (folder / "results.json").exists():
        return run_page.remake(folder, to)
    if (folder / MARK).is_dir():
        raise UserError(
            f"the run in '{folder}' has left no results yet: give its command again, then it can be reported"
        )
    if swept(folder):
        run_page.remake_missing(folder)
    return runs_page.write(folder, to)
