"""What a result depends on, as short hashes: the code, the library versions, the weights, the settings.

Nothing here imports torch: a run that is already finished is recognised in a moment.
"""

import re
import uuid
from collections.abc import Sequence
from typing import Any

from cad_exp.config.effective import changes_numbers, effective
from cad_exp.config.names import check_name
from cad_exp.config.runs import runs
from cad_exp.data.image_folder import images_digest
from cad_exp.data.prompts.sources import files as prompt_files
from cad_exp.evaluation.judges import judge_class
from cad_exp.models.model_folder import files as model_files
from cad_exp.models.sources import commit, locate, weights_file
from cad_exp.pipeline.code import code_version
from cad_exp.utils.hashing import digest, file_digest, files_digest, versions
from cad_exp.utils.paths import find_file


def run_identity(config: dict[str, Any]) -> str:
    """What a finished run must share with a new one to stand for it: settings, code, versions, weights, files."""
    parts = [effective(config), code_version("pipeline.experiment"), versions(), model_identity(config["model"])]
    parts += [file_digest(file) for file in prompt_files(config)]
    for each in runs(config):
        given, path = each["probes"]["images"], each["edit"].get("path")
        judge = judge_class(each["judge"])
        parts += [{} if judge is None else judge.identity_of(each)]
        parts += [images_digest(given, "probes.images") if given else None]
        parts += [file_digest(find_file(path, "edit.path"))] if path else []
    return digest(parts)


def run_hash(*, _root_: Any) -> str:
    """OmegaConf resolver for the names of run folders: eight hex digits of the settings, the code and the versions.

    UserError, before there is such a folder, for the name of a concept or granularity that cannot stand in its name.
    """
    from omegaconf import OmegaConf

    for key in ("concept.name", "granularity.name"):
        check_name(OmegaConf.select(_root_, key, default="none"), key)
    config = OmegaConf.to_container(_root_, resolve=False)
    config.pop("hydra", None)
    return digest([effective(config), code_version("pipeline.experiment"), versions()])[:8]


def sweep_name(asked: Sequence[str], swept: Sequence[str]) -> str:
    """The name of a sweep's folder: by what it sweeps over, and a hash of its overrides, the code and versions.

    asked: all overrides, as written; swept: those that name several values. What changes no number renames nothing.
    """
    words = re.sub(r"[^\w.,-]+", "_", "-".join(item.partition("=")[2] for item in swept if changes_numbers(item)))
    parts = [[item for item in asked if changes_numbers(item)], code_version("pipeline.experiment"), versions()]
    return f"{words[:60].strip('-_,') or 'sweep'}-{digest(parts)[:8]}"


def model_identity(settings: dict[str, Any]) -> dict[str, Any]:
    """Which weights a `model` config names: the content of a local folder, or id and commit of a hub model.

    Also those laid over its denoiser (`weights`) and the edits made in it. UserError for a missing weights file.
    """
    folder = locate(settings["path"])
    if folder is not None:
        weights = files_digest(folder, model_files(folder))
    else:
        # Without a commit nothing says that these are the weights of yesterday: then nothing stored may be used.
        weights = f"{settings['path']}@{commit(settings['path'], settings['revision']) or uuid.uuid4().hex}"
    edits = [file_digest(find_file(path, "model.edits", "edit file")) for path in settings.get("edits") or []]
    if edits:
        edits = [edits, code_version("interventions.edit")]
    overlay = None
    if settings.get("weights"):
        overlay = [file_digest(weights_file(settings["weights"])), code_version("models.state_dicts")]
    return {"weights": weights, "overlay": overlay, "edits": edits}
