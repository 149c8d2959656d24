"""Where a model's files are: the embedded one, a diffusers folder, or the Hugging Face hub. Loads nothing."""

import re
from pathlib import Path

from cad_exp.errors import UserError

EMBEDDED = Path(__file__).parent / "mini" / "weights" / "pipeline"


def locate(path: str | Path) -> Path | None:
    """The diffusers folder that `path` names, or None for a hub id. UserError for what can be neither."""
    path = str(path)
    folder = EMBEDDED if path == "mini" else Path(path).expanduser()
    if (folder / "model_index.json").is_file():
        return folder
    if path == "mini":
        raise UserError("the embedded model's weights are missing from this installation: install cad_exp again")
    if folder.exists():
        raise UserError(f"'{path}' is not a diffusers model: give the folder that holds model_index.json")
    if path.startswith((".", "~", "/")) or path.count("/") != 1:
        raise UserError(
            f"there is no model folder '{path}': give a diffusers folder, a hub id such as owner/name, or mini"
        )
    return None


def commit(path: str, revision: str | None) -> str | None:
    """The commit of a hub model: the pinned one, else that of the downloaded snapshot, else the hub's; None if unknown.

    Hub snapshots never change under their commit, so it names the weights as well as a hash of them would.
    """
    if revision and re.fullmatch(r"[0-9a-f]{40}", revision):
        return revision
    from huggingface_hub import HfApi, snapshot_download

    try:
        return HfApi().model_info(path, revision=revision, timeout=10).sha
    except Exception:  # no network: what was downloaded before is what will be loaded
        try:
            return Path(snapshot_download(path, revision=revision, local_files_only=True)).name
        except Exception:  # not there either: loading it will say so
            return None
