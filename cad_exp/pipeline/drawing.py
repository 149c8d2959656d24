"""What shows a run once its numbers are there: results.json is completed first, and no picture can cost it.

What cannot be drawn is named on one line, and in `run.left_out` of results.json. Only the first process draws.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from cad_exp.reporting import run_folder
from cad_exp.reporting.results import REPORT, STOPPED, Results
from cad_exp.reporting.tracking.tracker import Tracker
from cad_exp.utils import distributed
from cad_exp.utils.console import harmless

Drawings = dict[str, Callable[[], Any]]  # file name in the run's folder -> what makes it


def draw(drawings: Mapping[str, Callable[[], Any]], results: Results) -> list[str]:
    """Complete the results, then draw, and last write the report; return the names of what was drawn.

    Args:
        drawings: what is to be made, in this order.
        results: gets `run.left_out`: the names of what is missing, each with the reason.
    """
    drawings = {**drawings, **_report(results)} if distributed.main() else {}
    left_out = results.run["left_out"] = dict.fromkeys(drawings, STOPPED)
    results.finish()
    if not distributed.main():
        return []
    for name, function in drawings.items():
        with harmless(name, partial(left_out.__setitem__, name)):
            function()
            del left_out[name]
    with harmless("the list of the pictures in results.json"):
        results.finish()
    return [name for name in drawings if name not in left_out and name != REPORT]


def _report(results: Results) -> Drawings:
    """Return what writes the page that shows everything; nothing for results without a folder."""
    if results.folder is None:
        return {}
    folder = results.folder
    # a run works inside its folder's mark; Hydra's files lie beside that
    own = folder.parents[1] if folder.parent.name == run_folder.MARK else folder

    def report() -> None:
        from cad_exp.reporting.html import run_page

        run_page.write(folder, results.as_dict(), own / "config")

    return {REPORT: report}


def mirror(tracker: Tracker, results: Results, images: Mapping[str, Path | str], folder: Path) -> None:
    """Copy facts, metrics, images (title -> file), the report and results.json to the tracker."""
    if not distributed.main():
        return
    tracker.log_facts(results.run)
    tracker.log_metrics(results.metrics)
    tracker.log_images(dict(images))
    if (folder / REPORT).is_file():
        tracker.log_page("report", folder / REPORT)
    tracker.log_artifact(folder / "results.json", "results")
