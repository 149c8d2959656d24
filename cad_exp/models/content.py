"""What weights a model has, as hashes: of its files, of what is laid over its denoiser, of edits made in it.

Nothing here imports torch: a run that is already finished is recognised in a moment.
"""

from __future__ import annotations

import uuid
from typing import Any

from cad_exp.models.model_folder import files as model_files
from cad_exp.models.sources import commit, locate, weights_file
from cad_exp.utils.hashing import file_digest, files_digest
from cad_exp.utils.paths import find_file


def model_content(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the content of a model's files, as the group `model` of a config names them.

    weights: of a local folder, or id and commit of a hub model. overlay: of the file laid over its denoiser. edits: of
    the files of edits. Raises UserError for a file that is not there.
    """
    folder = locate(settings["path"])
    if folder is not None:
        weights = files_digest(folder, model_files(folder))
    else:
        # Without a commit nothing says that these are the weights of yesterday: then nothing stored may be used.
        weights = f"{settings['path']}@{commit(settings['path'], settings['revision']) or uuid.uuid4().hex}"
    overlay = file_digest(weights_file(settings["weights"])) if settings.get("weights") else None
    edits = [file_digest(find_file(path, "model.edits", "edit file")) for path in settings.get("edits") or []]
    return {"weights": weights, "overlay": overlay, "edits": edits}
