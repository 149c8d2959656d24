"""Files written atomically: a crash, a full disk or Ctrl-C leaves the old file or none, never a half."""

import errno
import json
import math
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

FULL = (errno.ENOSPC, errno.EDQUOT)
CLOSED = (errno.EACCES, errno.EPERM, errno.EROFS)


def temporary(path: Path | str) -> Path:
    """Return a hidden sibling of `path` with its suffix, to be moved onto it by `os.replace`."""
    path = Path(path)
    return path.with_name(f".{path.stem}-{os.getpid()}{path.suffix}")


@contextmanager
def atomic(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside `path`; it takes the name of `path` only if the block ends without an exception.

    The file has the permissions that any new file gets here, whoever writes it (safetensors would make it private).
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = temporary(path)
    try:
        mode = _usual(draft)
        yield draft
        _permit(draft, mode)
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def made(folder: Path) -> Iterator[Path]:
    """Make a folder with its parents for what the block writes; a block that fails leaves no empty ones behind.

    OSError where there can be none: known before the work, not after it.
    """
    new = [each for each in (folder, *folder.parents) if not os.path.lexists(each)]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield folder
    except BaseException:
        with suppress(OSError):  # another process writes there too, or the block left files
            for each in new:
                each.rmdir()
        raise


def permit(folder: Path) -> None:
    """Give every file below a folder the permissions that any new file gets there."""
    mode = _usual(folder / f".mode-{os.getpid()}")
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            _permit(path, mode)


def _usual(path: Path) -> int:
    """Return the permissions of a file that is newly made there, as umask and folder want it.

    The file is gone again.
    """
    path.unlink(missing_ok=True)
    path.touch()
    mode = path.stat().st_mode & 0o777
    path.unlink()
    return mode


def _permit(path: Path, mode: int) -> None:
    with suppress(OSError):  # another user's file under a second name: it stays as its owner wants it
        path.chmod(mode)


def write_json(path: Path | str, content: Any) -> None:
    """Write strict JSON atomically; a number that is not finite becomes null, because JSON has no NaN."""
    text = json.dumps(plain(content), indent=2, ensure_ascii=False, allow_nan=False)
    with atomic(path) as draft:
        draft.write_text(text + "\n", encoding="utf-8")


def read_json(path: Path) -> dict[str, Any] | None:
    """Return the object in a JSON file; None where there is no such file, or no object in it."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def plain(value: Any) -> Any:
    """Return the same content in JSON's own types (numpy and torch scalars, tuples, paths)."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def link(source: Path, target: Path) -> None:
    """Give a finished file a second name, or copy it where the file system cannot; replaces `target`."""
    import shutil

    with atomic(target) as draft:
        try:
            os.link(source, draft)
        except OSError:
            shutil.copyfile(source, draft)


def inside(folder: Path, name: str) -> Path | None:
    """Return the path of `name` below a folder; None if it leads out of the folder, by its dots or through a link."""
    path = folder / name
    steps = Path(name).parts
    if Path(name).is_absolute() or not steps or ".." in steps:
        return None
    linked = any(
        os.path.islink(parent) for parent in path.parents if parent.is_relative_to(folder) and parent != folder
    )
    return None if linked else path


def system_error(error: BaseException) -> OSError | None:
    """Return the operating system's error behind an error: itself, or the one that safetensors tells in words.

    None for any other error.
    """
    if isinstance(error, OSError):
        return error
    told = re.search(r"\(os error (\d+)\)", str(error)) if type(error).__name__ == "SafetensorError" else None
    return OSError(int(told[1]), os.strerror(int(told[1]))) if told else None


def silence(stream: Any) -> None:
    """Let whatever is still written to a stream whose reader is gone vanish."""
    target = os.open(os.devnull, os.O_WRONLY)
    os.dup2(target, stream.fileno())
    os.close(target)
