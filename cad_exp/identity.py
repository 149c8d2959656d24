"""What a result depends on, as short hashes: the code, the library versions, the weights, the settings.

Nothing here imports torch: a run that is already finished is recognised in a moment.
"""

import ast
import hashlib
import json
import re
import uuid
from collections.abc import Iterable, Sequence
from functools import cache, lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

from cad_exp.files import plain
from cad_exp.image_folder import image_files
from cad_exp.inputs import find_file, find_folder, listing, resolve
from cad_exp.model_files import commit, locate, weights_file
from cad_exp.model_folder import files as model_files
from cad_exp.names import check_name
from cad_exp.prompt_files import files as prompt_files
from cad_exp.runs import runs

PACKAGE = Path(__file__).parent
# A pixel or a score may change with these; a new version of any of them makes every stored result stale.
LIBRARIES = ("torch", "torchvision", "diffusers", "transformers", "numpy", "torchmetrics", "pillow")
# Whole groups, or single keys, that cannot change a number. `study` says how an experiment's table looks.
_NO_EFFECT = {"tracking": None, "runtime": ("cache", "checkpointing", "offload"), "study": None}


def digest(content: Any) -> str:
    """24 hex digits of the SHA-256 of JSON-able content."""
    return hashlib.sha256(json.dumps(plain(content), sort_keys=True).encode()).hexdigest()[:24]


def effective(config: dict[str, Any]) -> dict[str, Any]:
    """The part of a config that can change a number."""
    kept = {}
    for group, value in config.items():
        ignored = _NO_EFFECT.get(group, ())
        if ignored is None:
            continue
        kept[group] = {k: v for k, v in value.items() if k not in ignored} if isinstance(value, dict) else value
    return kept


def differences(old: Any, new: Any, key: str = "", common: bool = False) -> list[tuple[str, str, str]]:
    """(dotted key, old value, new value) of what differs, as JSON. common: only of keys that both have."""
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return [] if old == new else [(key, json.dumps(old), json.dumps(new))]
    names = [name for name in dict.fromkeys([*old, *new]) if not common or (name in old and name in new)]
    return [
        row
        for name in names
        for row in differences(old.get(name), new.get(name), f"{key}.{name}" if key else name, common)
    ]


def asked(config: dict[str, Any]) -> str:
    """Hash of what a settled config asks for, wherever it runs: results of several machines belong to one question."""
    kept = effective(config)
    place = kept.get("runtime")
    where = {"runtime": [place.get("precision"), place.get("score")]} if isinstance(place, dict) else {}
    return digest(_whole(kept | where))


def _whole(value: Any) -> Any:
    """Numbers as they count: -1.0 asks for what -1 asks for."""
    if isinstance(value, dict):
        return {key: _whole(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_whole(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


@cache
def versions() -> dict[str, str]:
    """Installed versions of the libraries that make numbers."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "unknown"
    return found


@cache
def code_version(*modules: str) -> str:
    """Hash of the code of modules of this package ("probes") and of all that they import from the package.

    It is taken over the syntax trees: a comment or a line break changes nothing, everything else does.
    """
    return digest(sorted((file.relative_to(PACKAGE).as_posix(), tree) for file, tree in code_files(*modules).items()))


def code_files(*modules: str) -> dict[Path, str]:
    """The files of modules of this package and of all that they import from it, each with its syntax tree's hash."""
    seen: dict[Path, str] = {}
    waiting = [_file(name.split(".")) for name in modules]
    while waiting:
        file = waiting.pop()
        if file is not None and file not in seen:
            seen[file], imported = _parsed(file, source(file))
            waiting += imported
    return seen


def source(file: Path) -> bytes:
    """The source text of a file of this package."""
    return file.read_bytes()


@lru_cache(maxsize=1024)
def _parsed(file: Path, text: bytes) -> tuple[str, list[Path]]:
    """The hash of a file's syntax tree, and the files of this package that it imports."""
    tree = ast.parse(text)
    imported = [other for node in ast.walk(tree) for other in _imports(node, file)]
    return digest(ast.dump(tree)), [other for other in imported if other is not None]


def _imports(node: ast.AST, file: Path) -> list[Path | None]:
    """Files of this package that an import statement names."""
    if isinstance(node, ast.Import):
        return [_file(a.name.split(".")[1:]) for a in node.names if a.name.startswith("cad_exp.")]
    if not isinstance(node, ast.ImportFrom):
        return []
    if node.level:
        folder = file.parent.relative_to(PACKAGE).parts
        base = [*folder[: len(folder) + 1 - node.level], *(node.module or "").split(".")]
    elif (node.module or "").split(".")[0] == "cad_exp":
        base = (node.module or "").split(".")[1:]
    else:
        return []
    base = [part for part in base if part]
    return [_file(base), *(_file([*base, a.name]) for a in node.names)]


def _file(parts: list[str]) -> Path | None:
    place = PACKAGE.joinpath(*parts)
    for file in (place.with_suffix(".py"), place / "__init__.py"):
        if parts and file.is_file():
            return file
    return None


@lru_cache(maxsize=4096)
def _file_digest(path: str, size: int, changed: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_digest(path: str | Path) -> str:
    """SHA-256 of a file; read again when its size or time of change differ."""
    state = Path(path).stat()
    return _file_digest(str(Path(path).resolve()), state.st_size, state.st_mtime_ns)


def folder_digest(folder: str | Path) -> str:
    """Hash of the names and contents of all files below a folder, hidden ones left out."""
    return files_digest(folder, listing(folder))


def images_digest(folder: str | Path, key: str) -> str:
    """Hash of the images of a folder that the config's `key` names. UserError if there is none."""
    return files_digest(folder, image_files(find_folder(folder, key, "folder of images")))


def files_digest(folder: str | Path, files: Iterable[Path]) -> str:
    """Hash of the names, relative to a folder, and the contents of some files below it."""
    top = resolve(folder)
    return digest({file.relative_to(top).as_posix(): file_digest(file) for file in files})


def run_identity(config: dict[str, Any]) -> str:
    """What a finished run must share with a new one to stand for it: settings, code, versions, weights, files."""
    from cad_exp.judge_files import judge_identity

    parts = [effective(config), code_version("experiment"), versions(), model_identity(config["model"])]
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
    return digest([effective(config), code_version("experiment"), versions()])[:8]


def sweep_name(asked: Sequence[str], swept: Sequence[str]) -> str:
    """The name of a sweep's folder: by what it sweeps over, and a hash of its overrides, the code and versions.

    asked: all overrides, as written; swept: those that name several values. What changes no number renames nothing.
    """
    words = re.sub(r"[^\w.,-]+", "_", "-".join(item.partition("=")[2] for item in swept if _counts(item)))
    parts = [[item for item in asked if _counts(item)], code_version("experiment"), versions()]
    return f"{words[:60].strip('-_,') or 'sweep'}-{digest(parts)[:8]}"


def _counts(override: str) -> bool:
    """Whether what an override changes can change a number."""
    group, _, key = override.partition("=")[0].lstrip("+~").partition(".")
    ignored = _NO_EFFECT.get(group, ())
    return ignored is not None and key not in ignored


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
        edits = [edits, code_version("edit")]
    overlay = None
    if settings.get("weights"):
        overlay = [file_digest(weights_file(settings["weights"])), code_version("checkpoints")]
    return {"weights": weights, "overlay": overlay, "edits": edits}
