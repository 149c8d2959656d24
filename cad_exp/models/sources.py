"""Where a model's files are: in a package that ships it, a diffusers folder, or the Hugging Face hub. Loads nothing."""

import os
import re
from pathlib import Path

from cad_exp.models.model_folder import INDEX
from cad_exp.utils.errors import UserError
from cad_exp.utils.paths import resolve
from cad_exp.utils.registry import Registry

# Models that a package ships, by `model.path`: classes of cad_exp.models.shipped.Shipped.
MODELS = Registry("model")
PATIENCE = 5.0  # seconds that the hub has for its first answer
HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")
_FILES = (".safetensors", ".ckpt", ".pt", ".pth", ".bin", ".gguf", ".onnx", ".json", ".zip", ".tar")  # no hub id's end


def locate(path: str | Path) -> Path | None:
    """Return the diffusers folder that `path` names, or None for a hub id. UserError for what can be neither."""
    path = str(path)
    folder = Path(MODELS.get(path).folder) if path in MODELS else resolve(path)
    if os.path.isfile(folder / INDEX):
        return folder
    if path in MODELS:
        origin = MODELS.where(path).origin
        raise UserError(f"the weights of the model '{path}' are missing from this installation: install {origin} again")
    if os.path.exists(folder):
        raise UserError(f"'{path}' is not a diffusers model: give the folder that holds {INDEX}")
    if path.lower().endswith(_FILES):
        raise UserError(
            f"there is no file '{path}', and model.path names a diffusers folder or a hub id: "
            "weights of a denoiser are laid over a model by model.weights=FILE"
        )
    if not HUB_ID.fullmatch(path):
        raise UserError(
            f"there is no model folder '{path}': give a diffusers folder, a hub id such as owner/name, "
            f"{' or '.join(MODELS)}"
        )
    return None


def commit(path: str, revision: str | None) -> str | None:
    """Return the commit of a hub model: the pinned, else the downloaded, else the hub's; None if unknown.

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


def weights_file(path: str | Path) -> Path:
    """Return the file of `model.weights`. UserError if there is none."""
    file = resolve(path)
    if os.path.isdir(file):
        raise UserError(f"model.weights='{path}' is a folder: give the file in it that holds the denoiser's weights")
    if not os.path.isfile(file):
        raise UserError(f"there is no weights file '{path}': check model.weights (it is never downloaded)")
    return file


def check_reachable(path: str, revision: str | None) -> None:
    """Raise UserError within seconds if a hub model is neither on this machine nor to be had from the hub.

    Without this check a download is tried again and again, file after file, before it is given up.
    """
    if locate(path) is None:
        elsewhere = "download it on another machine and use model=local model.path=FOLDER (docs/guides/own_model.md)"
        check_hub(path, revision, INDEX, "model.path", elsewhere)


def check_hub(path: str, revision: str | None, index: str, key: str, elsewhere: str) -> None:
    """Raise UserError if nothing of this id is on this machine or to be had from the hub.

    Args:
        path: the hub id.
        revision: a commit or branch; None: the newest.
        index: the file that tells that it was downloaded.
        key: of the config, that names it.
        elsewhere: what else helps.
    """
    if _downloaded(path, revision, index):
        return
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    if constants.is_offline_mode():
        raise UserError(f"'{path}' is not on this machine, and HF_HUB_OFFLINE forbids to download it: {elsewhere}")
    try:
        HfApi().model_info(path, revision=revision, timeout=PATIENCE)
    except GatedRepoError as error:
        raise UserError(f"'{path}' is gated: accept its licence on huggingface.co, then `hf auth login`") from error
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        at = f" at revision {revision}" if revision else ""
        raise UserError(f"the hub has no model '{path}'{at}, or it needs a login: check {key}") from error
    except Exception as error:  # hub and network errors share no base class, and change with the hub's HTTP library
        reason = " ".join(str(error).split())[:100] or type(error).__name__
        raise UserError(f"the Hugging Face hub cannot be reached for '{path}' ({reason}): {elsewhere}") from error


def _downloaded(path: str, revision: str | None, index: str) -> bool:
    from huggingface_hub import snapshot_download

    try:
        folder = snapshot_download(path, revision=revision, local_files_only=True, allow_patterns=[index])
    except Exception:  # whatever keeps the snapshot from being found, it has to be downloaded
        return False
    return (Path(folder) / index).is_file()
