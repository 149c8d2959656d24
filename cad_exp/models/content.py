"""What weights a model has, as hashes: of its files, of what is laid over its denoiser, of edits made in it.

Nothing here imports torch: a run that is already finished is recognised in a moment.
"""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

from cad_exp.models.model_folder import config_files
from cad_exp.models.model_folder import files as model_files
from cad_exp.models.sources import commit, locate, locate_config, lora_file, weights_file
from cad_exp.utils.hashing import digest, file_digest, files_digest
from cad_exp.utils.paths import find_file


def model_content(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the content of a model's files, as the group `model` of a config names them.

    weights: of a local folder, or id and commit of a hub model. overlay: of the file laid over its denoiser. lora: of
    LoRA files, with their scale. edits: of the files of edits. Raises UserError for a file that is not there.
    """
    folder = locate(settings["path"])
    if folder is not None and folder.is_file():
        weights = digest([file_digest(folder), _config(settings, folder)])
    elif folder is not None:
        weights = files_digest(folder, model_files(folder))
    else:
        weights = _of_hub(settings["path"], settings["revision"])
    overlay = file_digest(weights_file(settings["weights"])) if settings.get("weights") else None
    edits = [file_digest(find_file(path, "model.edits", "edit file")) for path in settings.get("edits") or []]
    found = {"weights": weights, "overlay": overlay, "edits": edits}
    files = [file_digest(lora_file(path)) for path in settings.get("lora") or []]
    return found | ({"lora": [files, float(settings.get("lora_scale", 1.0))]} if files else {})


def _config(settings: dict[str, Any], file: Path) -> str:
    """Return the content of the folder, or the commit of the hub id, that describes a single file."""
    folder = locate_config(settings.get("config"), file)
    if folder is None:
        return _of_hub(str(settings["config"]), settings["revision"])
    return files_digest(folder, config_files(folder))


def _of_hub(path: str, revision: str | None) -> str:
    # Without a commit nothing says that these are the weights of yesterday: then nothing stored may be used.
    return f"{path}@{commit(path, revision) or uuid.uuid4().hex}"
