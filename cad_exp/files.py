"""Files written atomically: a crash, a full disk or Ctrl-C leaves the old file or none, never a half."""

import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def temporary(path: Path | str) -> Path:
    """A hidden sibling of `path` with its suffix, to be moved onto it by `os.replace`."""
    path = Path(path)
    return path.with_name(f".{path.stem}-{os.getpid()}{path.suffix}")


@contextmanager
def atomic(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside `path`; it takes the name of `path` only if the block ends without an exception."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = temporary(path)
    try:
        yield draft
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def write_json(path: Path | str, content: Any) -> None:
    """Write strict JSON atomically; a number that is not finite becomes null, because JSON has no NaN."""
    text = json.dumps(plain(content), indent=2, ensure_ascii=False, allow_nan=False)
    with atomic(path) as draft:
        draft.write_text(text + "\n", encoding="utf-8")


def plain(value: Any) -> Any:
    """The same content in JSON's own types (numpy and torch scalars, tuples, paths)."""
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
