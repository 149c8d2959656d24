"""Files and folders that a config names: one way to find them and one to list them, for loaders and identities alike.

What identifies an input must be what its loader reads. So nobody else expands `~` or decides which files count.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from cad_exp.utils.errors import UserError


def resolve(path: str | Path) -> Path:
    """Return the absolute path: `~` expanded, relative paths taken from the current folder, links not followed.

    Links keep their names, because the hub's cache links `model.safetensors` to a file without an ending.
    """
    return Path(os.path.expanduser(str(path))).absolute()


def find_file(path: str | Path, key: str, what: str = "file", advice: str = "") -> Path:
    """Return the resolved path of an existing file. UserError that names the config's key if there is none.

    what: what a person calls the file. advice: what to do about it; None needed where the key says it.
    """
    file = resolve(path)
    if os.path.isfile(file):
        return file
    end = f": {advice}" if advice else ""
    if os.path.isdir(file):
        raise UserError(f"{key}='{path}' is a folder and no {what}{end}")
    raise UserError(f"there is no {what} '{path}'{end or f': check {key}'}")


def find_folder(path: str | Path, key: str, what: str = "folder", advice: str = "") -> Path:
    """Return the resolved path of an existing folder. UserError that names the config's key if there is none."""
    folder = resolve(path)
    if os.path.isdir(folder):
        return folder
    end = f": {advice}" if advice else ""
    if os.path.exists(folder):
        raise UserError(f"{key}='{path}' is a file and no {what}{end}")
    raise UserError(f"there is no {what} '{path}'{end or f': check {key}'}")


def listing(folder: str | Path, endings: Collection[str] | None = None) -> list[Path]:
    """Return the files below a folder, by name, sub-folders included; hidden files and folders are left out.

    Linked folders count as folders, each once. endings: only files that end so (".png"), in upper or lower case.
    Raises UserError for a folder that may not be read.
    """
    found = [file for file in names(folder) if os.path.isfile(file) and not file.name.startswith(".")]
    if endings is not None:
        found = [file for file in found if file.suffix.lower() in endings]
    return found


def names(folder: str | Path) -> list[Path]:
    """Return all that lies below a folder but folders, hidden files and broken links included, in order of the names.

    Hidden folders are not entered. Raises UserError for a folder that may not be read.
    """

    def refuse(error: OSError) -> None:
        raise UserError(f"the folder '{error.filename}' cannot be read: {error.strerror}") from error

    top, found, seen = resolve(folder), [], set()
    for place, folders, files in os.walk(top, followlinks=True, onerror=refuse):
        real = os.path.realpath(place)
        if real in seen:  # a link to a folder above it, or a second one to the same
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [Path(place, name) for name in files]
    return sorted(found, key=lambda file: file.relative_to(top).parts)
