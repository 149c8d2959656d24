"""Short hashes of content, files and folders, and the versions of the libraries that make numbers."""

import hashlib
import json
from collections.abc import Iterable
from functools import cache, lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

from cad_exp.utils.io import plain
from cad_exp.utils.paths import listing, resolve

# A pixel or a score may change with these; a new version of any of them makes every stored result stale.
LIBRARIES = ("torch", "torchvision", "diffusers", "transformers", "numpy", "torchmetrics", "pillow")


def digest(content: Any) -> str:
    """24 hex digits of the SHA-256 of JSON-able content."""
    return hashlib.sha256(json.dumps(plain(content), sort_keys=True).encode()).hexdigest()[:24]


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


def files_digest(folder: str | Path, files: Iterable[Path]) -> str:
    """Hash of the names, relative to a folder, and the contents of some files below it."""
    top = resolve(folder)
    return digest({file.relative_to(top).as_posix(): file_digest(file) for file in files})
