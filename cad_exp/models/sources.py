"""Where a model's files are: in a package that ships it, a folder, a single file, or the hub. Loads nothing."""

import os
import re
from pathlib import Path

from cad_exp.models.model_folder import INDEX
from cad_exp.utils.errors import UserError, reason_of
from cad_exp.utils.paths import resolve
from cad_exp.utils.registry import Registry
from cad_exp.utils.tensor_header import tensor_names

# Models that a package ships, by `model.path`: classes of cad_exp.models.shipped.Shipped.
MODELS = Registry("model")
PATIENCE = 5.0  # seconds that the hub has for its first answer
HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")
_FILES = (".safetensors", ".ckpt", ".pt", ".pth", ".bin", ".gguf", ".onnx", ".json", ".zip", ".tar")  # no hub id's end


def locate(path: str | Path) -> Path | None:
    """Return the diffusers folder or the single file that `path` names, or None for a hub id.

    Raises UserError for what can be none of them.
    """
    path = str(path)
    folder = Path(MODELS.get(path).folder) if path in MODELS else resolve(path)
    if os.path.isfile(folder / INDEX):
        return folder
    if os.path.isfile(folder):
        check_safetensors(folder, "model.path")
        return folder
    if path in MODELS:
        origin = MODELS.where(path).origin
        raise UserError(f"the weights of the model '{path}' are missing from this installation: install {origin} again")
    if os.path.exists(folder):
        raise UserError(f"'{path}' is not a diffusers model: give the folder that holds {INDEX}")
    if path.lower().endswith(_FILES):
        raise UserError(
            f"there is no file '{path}', and model.path names a diffusers folder, a checkpoint or a hub id: "
            "weights of a denoiser are laid over a model by model.weights=FILE"
        )
    if not HUB_ID.fullmatch(path):
        raise UserError(
            f"there is no model folder '{path}': give a diffusers folder, a hub id such as owner/name, "
            f"{' or '.join(MODELS)}"
        )
    return None


def locate_config(config: str | None, file: Path) -> Path | None:
    """Return the folder of `model.config`, which a single file needs, or None for a hub id. UserError for neither."""
    if not config:
        raise UserError(
            f"'{file.name}' is a single file, which holds no configs and no tokenizer: "
            "give model.config=FOLDER or the hub id of the model that it descends from (docs/guides/own_model.md)"
        )
    folder = locate(config)
    if folder is not None and not folder.is_dir():
        raise UserError(f"model.config='{config}' is a file: give the diffusers folder that describes the model")
    return folder


def check_safetensors(file: Path, key: str) -> None:
    """Raise UserError for a file of weights that is no safetensors file: others could run code and are not opened."""
    if tensor_names(file):
        return
    if file.suffix.lower() in (".ckpt", ".pt", ".pth", ".bin"):
        raise UserError(
            f"{key}='{file}' is a pickle, which could run code and is not opened: convert it first, by "
            "safetensors.torch.save_file(torch.load('x.ckpt', weights_only=True)['state_dict'], 'x.safetensors')"
        )
    raise UserError(f"{key}='{file}' is damaged or no safetensors file: download it again")


def lora_file(given: str | Path) -> Path:
    """Return the file of an entry of `model.lora`, downloaded if it is a hub id. UserError if it cannot be had."""
    file = resolve(given)
    if os.path.isfile(file):
        check_safetensors(file, "model.lora")
        if not any("lora" in name.lower() for name in tensor_names(file)):
            raise UserError(f"model.lora='{given}' holds no LoRA layers: weights of a denoiser are model.weights=FILE")
        return file
    parts = str(given).split("/")
    if (
        os.path.exists(file)
        or len(parts) < 2
        or not HUB_ID.fullmatch("/".join(parts[:2]))
        or (str(given).endswith(_FILES) and len(parts) < 3)
    ):
        raise UserError(f"there is no LoRA file '{given}': give a .safetensors file, or owner/name of one on the hub")
    return _hub_lora("/".join(parts[:2]), "/".join(parts[2:]))


def _hub_lora(repository: str, name: str) -> Path:
    from huggingface_hub import HfApi, hf_hub_download

    try:
        names = [name] if name else HfApi().list_repo_files(repository)
        files = [each for each in names if each.endswith(".safetensors")]
        if len(files) == 1:
            return Path(hf_hub_download(repository, files[0]))
    except Exception as error:  # hub and network errors share no base class
        reason = reason_of(error, 100)
        raise UserError(f"the LoRA '{repository}' cannot be had from the hub ({reason}): give its file") from error
    found = ", ".join(files[:5]) or "no .safetensors file"
    raise UserError(f"the hub's '{repository}' holds {found}: name one file, as {repository}/FILE.safetensors")


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


def by_torch(file: str | Path) -> bool:
    """Return whether a file begins as those do that torch writes: a pickle in a zip file, or a bare one."""
    with open(file, "rb") as stream:
        start = stream.read(2)
    return start == b"PK" or start[:1] == b"\x80"


def weights_file(path: str | Path) -> Path:
    """Return the file of `model.weights`. UserError if there is none."""
    file = resolve(path)
    if os.path.isdir(file):
        raise UserError(f"model.weights='{path}' is a folder: give the file in it that holds the denoiser's weights")
    if not os.path.isfile(file):
        raise UserError(f"there is no weights file '{path}': check model.weights (it is never downloaded)")
    return file


def check_weights(path: str) -> None:
    """Raise UserError if there is no file of `model.weights`, or one of another kind; its content tells."""
    file = weights_file(path)
    if not by_torch(file) and not tensor_names(file):
        raise UserError(f"model.weights='{path}' is damaged, or no safetensors or torch file: download it again")


def check_reachable(path: str, revision: str | None, config: str | None = None) -> None:
    """Raise UserError within seconds if a hub model is neither on this machine nor to be had from the hub.

    config: of a single file, which may be a hub id too. Without this check a download is tried again and again, file
    after file, before it is given up.
    """
    place = locate(path)
    if place is not None and place.is_file():
        if locate_config(config, place) is None:
            elsewhere = "give a diffusers folder of the same kind of model, model.config=FOLDER"
            check_hub(str(config), revision, INDEX, "model.config", elsewhere)
    elif place is None:
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
        reason = reason_of(error, 100)
        raise UserError(f"the Hugging Face hub cannot be reached for '{path}' ({reason}): {elsewhere}") from error


def _downloaded(path: str, revision: str | None, index: str) -> bool:
    from huggingface_hub import snapshot_download

    try:
        folder = snapshot_download(path, revision=revision, local_files_only=True, allow_patterns=[index])
    except Exception:  # whatever keeps the snapshot from being found, it has to be downloaded
        return False
    return (Path(folder) / index).is_file()
