"""What a result depends on, as short hashes: the code, the library versions, the weights, the settings.

Nothing here imports torch: a run that is already finished is recognised in a moment.
"""

import re
from collections.abc import Sequence
from typing import Any

from cad_exp.config.effective import changes_numbers, effective
from cad_exp.config.names import check_name
from cad_exp.config.runs import runs
from cad_exp.data.image_folder import images_digest
from cad_exp.data.prompts.sources import files as prompt_files
from cad_exp.models.content import model_content
from cad_exp.pipeline.keys import code_version
from cad_exp.utils.hashing import digest, file_digest, versions
from cad_exp.utils.paths import find_file


def run_identity(config: dict[str, Any]) -> str:
    """What a finished run must share with a new one to stand for it: settings, code, versions, weights, files."""
    from cad_exp.evaluation.judge_sources import judge_identity

    parts = [effective(config), code_version("cad_exp.pipeline.run"), versions(), model_content(config["model"])]
    parts += [file_digest(file) for file in prompt_files(config)]
    for each in runs(config):
        given, path = each["probes"]["images"], each["edit"].get("path")
        parts += [judge_identity(each), images_digest(given, "probes.images") if given else None]
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
    return digest([effective(config), code_version("cad_exp.pipeline.run"), versions()])[:8]


def sweep_name(asked: Sequence[str], swept: Sequence[str]) -> str:
    """The name of a sweep's folder: by what it sweeps over, and a hash of its overrides, the code and versions.

    asked: all overrides, as written; swept: those that name several values. What changes no number renames nothing.
    """
    words = re.sub(r"[^\w.,-]+", "_", "-".join(item.partition("=")[2] for item in swept if changes_numbers(item)))
    parts = [[item for item in asked if changes_numbers(item)], code_version("cad_exp.pipeline.run"), versions()]
    return f"{words[:60].strip('-_,') or 'sweep'}-{digest(parts)[:8]}"
