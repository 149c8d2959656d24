"""The report of one run: every part that its folder has something for, on one page."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from markupsafe import Markup

from cad_exp.reporting import run_folder
from cad_exp.reporting.html import place
from cad_exp.reporting.html.asked import asked, made
from cad_exp.reporting.html.components import components
from cad_exp.reporting.html.counterfactuals import counterfactuals
from cad_exp.reporting.html.drawn import drawn
from cad_exp.reporting.html.edit import edit
from cad_exp.reporting.html.fidelity import fidelity
from cad_exp.reporting.html.gallery import gallery
from cad_exp.reporting.html.layers import layers
from cad_exp.reporting.html.metrics import metrics
from cad_exp.reporting.html.render import page, part
from cad_exp.reporting.html.source import Source
from cad_exp.reporting.html.verdicts import verdicts
from cad_exp.reporting.html.walk import walk
from cad_exp.reporting.results import FILE, REPORT, harm, load_results
from cad_exp.utils.console import harmless
from cad_exp.utils.errors import UserError
from cad_exp.utils.io import plain

# name of the part, and of its template -> (heading, what makes it), in the order of the page
PARTS: dict[str, tuple[str, Callable[[Source], Any]]] = {
    "verdicts": ("Verdict", verdicts),
    "metrics": ("Metrics", metrics),
    "gallery": ("Before and after", gallery),
    "edit": ("What the edit changes", edit),
    "walk": ("How the strength was chosen", walk),
    "layers": ("Where it sits", layers),
    "components": ("Components", components),
    "counterfactuals": ("One component switched off", counterfactuals),
    "fidelity": ("Predicted and true effects", fidelity),
    "drawn": ("Pictures of the run", drawn),
    "made": ("How this was made", made),
}


def run_page(source: Source) -> str:
    """Return the report of a run. A part that cannot be made is named on the page, with the reason."""
    missing = {name: reason for name, reason in (source.run.get("left_out") or {}).items() if name != REPORT}
    parts: dict[str, Markup] = {}
    for name, (title, make) in PARTS.items():
        with harmless(f"the part “{title}” of the report", partial(missing.__setitem__, title)):
            if (found := make(source)) is not None:
                parts[name] = part(f"{name}.html", part=found)
    titles = {name: PARTS[name][0] for name in parts}
    return page("run.html", asked=asked(source), parts=parts, titles=titles, missing=missing)


def write(folder: Path, content: Mapping[str, Any], command_folder: Path, path: Path | None = None) -> Path:
    """Write the report of a run; returns its path, `report.html` in the folder by default.

    content: of results.json. command_folder: Hydra's `config/`, from which the command is told.
    """
    return place.save(run_page(Source(folder, plain(content), command_folder)), path or folder / REPORT)


def remake(folder: Path, path: Path | None = None) -> Path:
    """Write the report of a finished run from its folder alone.

    path: another file for it; else it goes into the folder, which must be one that a run made.
    Raises UserError for a folder without finished results, with damaged ones, or that is not ours.
    """
    content = load_results(folder)
    if not content["run"].get("complete"):
        raise UserError(f"the run in '{folder}' has not finished: give the same command again, then it can be reported")
    if damage := harm(folder, content):
        raise UserError(
            f"'{folder}' is damaged ({damage}): give the run's command again, its stages come from the cache"
        )
    if path is None:
        _check_ours(folder)
    else:
        place.check(path)
    made = write(folder, content, folder / "config", path)
    if path is None:
        run_folder.adopt(folder, REPORT)
    return made


def remake_missing(folder: Path) -> None:
    """Write the reports of a sweep's finished runs that have none; what cannot be made is named on one line."""
    for mark in sorted(folder.glob(f"*/{run_folder.MARK}")):
        own = mark.parent
        if (own / FILE).is_file() and not (own / REPORT).exists():
            with harmless(f"the report of {own.name}"):
                remake(own)


def _check_ours(folder: Path) -> None:
    """Raise UserError for a folder that no run of this machine made: a copy, for example, which has no mark."""
    try:
        run_folder.check(folder)
    except run_folder.Refused:
        raise UserError(
            f"'{folder}' is not a folder that a run made (there is no {run_folder.MARK} in it): say where the report "
            "goes, --to FILE.html"
        ) from None
