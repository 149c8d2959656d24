"""An entry on disk: what is one, what is damaged, and what in its folder belongs to somebody else.

An entry is a folder `<cache>/<stage>/<key>/` with the stage's files and `entry.json`. That file lists what the key
stands for, and the SHA-256 of every other file.
"""

import os
import re
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cad_exp.utils.hashing import digest, file_digest
from cad_exp.utils.io import permit, read_json, write_json

ENTRY = "entry.json"
_KEY = re.compile("[0-9a-f]{24}")


def seal(draft: Path, content: dict[str, Any], seconds: float) -> None:
    """Write the entry.json of a finished draft: its content, the hashes of its files, when and how long it was made."""
    permit(draft)
    files = {p.relative_to(draft).as_posix(): file_digest(p) for p in sorted(draft.rglob("*")) if p.is_file()}
    done = {"created": datetime.now(UTC).isoformat(timespec="seconds"), "seconds": round(seconds, 3)}
    write_json(draft / ENTRY, {**content, "files": files, **done})


def is_entry(place: Path) -> bool:
    """Return whether an entry lies there: a real folder in a real folder, with the entry.json of just this key."""
    if not _KEY.fullmatch(place.name) or place.is_symlink() or place.parent.is_symlink() or not place.is_dir():
        return False
    return not (place / ENTRY).is_symlink() and _content(place) is not None


def _content(place: Path) -> dict[str, Any] | None:
    """Return what entry.json says; None where it is not the one that was written for this key."""
    content = read_json(place / ENTRY)
    if content is None or content.get("stage") != place.parent.name or not isinstance(content.get("files"), dict):
        return None
    try:
        fits = digest({key: content.get(key) for key in ("stage", "inputs", "code", "versions")}) == place.name
    except RecursionError:
        return None
    return content if fits and content["files"] else None


def damage(place: Path) -> str | None:
    """Return what is wrong with an entry, by its checksums; None when all is well."""
    if not is_entry(place):
        real = place.is_dir() and not place.is_symlink() and _KEY.fullmatch(place.name)
        return f"{ENTRY} is not what was written" if real else "it is no entry"
    for name, expected in (_content(place) or {}).get("files", {}).items():
        if not os.path.isfile(place / name):
            return f"{name} is missing"
        if file_digest(place / name) != expected:
            return f"{name} is not what was written"
    return None


def foreign(place: Path) -> str | None:
    """Return the first file or link in an entry's folder that the entry does not list; None without any."""
    listed = {ENTRY, *(read_json(place / ENTRY) or {}).get("files", {})}
    for path in sorted(place.rglob("*")):
        name = path.relative_to(place).as_posix()
        if path.is_symlink() or (not path.is_dir() and name not in listed):
            return name
    return None


def entry_size(place: Path) -> int:
    """Return the bytes of all files in an entry's folder."""
    total = 0
    for path in place.rglob("*"):
        with suppress(OSError):  # gone meanwhile
            total += path.lstat().st_size if not path.is_dir() else 0
    return total


def mark_used(place: Path) -> None:
    """Note that the entry is used now. For the holder of its lock; raises OSError where nothing can be written."""
    os.utime(place / ENTRY)


def last_used(place: Path) -> float:
    """Return when the entry was last used (seconds since 1970)."""
    try:
        return (place / ENTRY).stat().st_mtime
    except OSError:
        return 0.0
