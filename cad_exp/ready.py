"""Whether what a run cannot do without is at hand: first its model, then the files that it names, then its judges.

Asked before anything heavy is imported, so that a command that cannot work is answered within seconds.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cad_exp import prompt_files
from cad_exp.cache import Cache
from cad_exp.errors import UserError
from cad_exp.judge_files import at_hand, reference_place, wanted
from cad_exp.model_files import check_reachable, weights_file
from cad_exp.runs import runs


def check(config: dict[str, Any]) -> None:
    """UserError, of a settled config, for what cannot be had: the model, a file, or else all judges that lack."""
    if config["runtime"]["cache"]:
        Cache(config["runtime"]["cache"])  # refuses a folder that is no cache
    check_reachable(config["model"]["path"], config["model"]["revision"])
    _files(config)
    for each in runs(config):
        _judges(each)


def _files(config: dict[str, Any]) -> None:
    """UserError for the first file that is not there: weights, edits, prompt sets."""
    model = config["model"]
    if model.get("weights"):
        weights_file(model["weights"])
    for path in model.get("edits") or []:
        if not Path(path).is_file():
            raise UserError(f"there is no edit file '{path}': check model.edits")
    if config["evaluation"]["metrics"]:
        prompt_files.files(config)


def _judges(config: dict[str, Any]) -> None:
    """UserError that names all judges which the metrics and the objective need and which are not at hand."""
    judge = config["judge"]
    if judge["name"] == "real":
        names = wanted(config)
        at_hand(judge, names)
        if "inception" in names and judge["inception"]["reference"] is not None:
            reference_place(judge["inception"]["reference"])
