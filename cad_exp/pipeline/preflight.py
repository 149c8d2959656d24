"""Whether what a run cannot do without is at hand: first its model, then the files that it names, then its judges.

Asked before anything heavy is imported, so that a command that cannot work is answered within seconds.
"""

from __future__ import annotations

from typing import Any

from cad_exp.config.runs import runs
from cad_exp.data import image_folder, prompts
from cad_exp.evaluation.judges import judge_class
from cad_exp.evaluation.labels import check_label
from cad_exp.models import model_folder
from cad_exp.models.sources import check_reachable, locate, weights_file
from cad_exp.pipeline.cache.store import Cache
from cad_exp.utils.errors import UserError
from cad_exp.utils.paths import find_file
from cad_exp.utils.tensor_header import kind_of


def check(config: dict[str, Any]) -> None:
    """UserError, of a resolved config, for what cannot be had: the model, a file, or else all judges that lack."""
    if config["runtime"]["cache"]:
        Cache(config["runtime"]["cache"])  # refuses a folder that is no cache
    model = config["model"]
    check_reachable(model["path"], model["revision"])
    folder = locate(model["path"])
    if folder is not None:
        model_folder.check(folder, model["resolution"])
    _files(config)
    for each in runs(config):
        check_label(each)
        _judges(each)


def _files(config: dict[str, Any]) -> None:
    """UserError for the first file that is not there or no good: weights, edits, prompt sets."""
    model = config["model"]
    if model.get("weights"):
        weights_file(model["weights"])
    for path in model.get("edits") or []:
        if kind_of(find_file(path, "model.edits", "edit file")) != "edit":
            raise UserError(f"model.edits='{path}' is damaged or no edit file: give the edit.safetensors of a run")
    prompts.plan(config)  # reads the sets: what is wrong with one is said now
    for each in runs(config):
        if each["probes"]["images"]:
            image_folder.check_and_tell(each["probes"]["images"], "probes.images")


def _judges(config: dict[str, Any]) -> None:
    """UserError that names all judges which the metrics and the objective need and which are not at hand."""
    judge = judge_class(config["judge"])
    if judge is not None:
        judge.at_hand(config)
        for folder, key, least in judge.folders(config):
            image_folder.check_and_tell(folder, key, least)
