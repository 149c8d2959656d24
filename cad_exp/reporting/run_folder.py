"""The folder of a run: only a new or empty one, or one that a run made, is ever written into.

`MARK`, a hidden folder, says that a folder is ours; making it is one step, so a run killed at any moment leaves a
folder that is empty or ours. Everything that a run makes goes into MARK/work first, and takes its place in the folder
when it is complete, whole file by whole file; results.json comes last. Then what the run before had left, and this one
did not make again, is removed: by the names in MARK/published.json, never by looking what is there. A run killed among
these steps is brought to their end by the next one.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from cad_exp.config.effective import differences, effective
from cad_exp.reporting.results import FILE, harm, load_results
from cad_exp.utils import console, distributed
from cad_exp.utils.errors import UserError
from cad_exp.utils.hashing import file_digest
from cad_exp.utils.io import inside, link, plain, read_json, write_json

MARK = ".cad_exp-run"
ERROR = "error.json"  # in a run's folder from its start to its success
SHOWN = 3  # foreign files that a message names


class Refused(UserError):
    """A folder that this run must not touch: not even the error is written into it."""


def check(folder: Path, mark: str = MARK, key: str = "hydra.run.dir", ignored: str | None = None) -> None:
    """Refused unless the folder is absent, empty, or has the mark. `ignored`: a name in it that does not count."""
    try:
        names = sorted(path.name for path in folder.iterdir() if path.name != ignored)
    except FileNotFoundError:
        return
    except OSError as error:
        raise Refused(f"'{folder}' is no folder to write into ({error.strerror}): give another {key}") from None
    ours = (folder / mark).is_dir() and not (folder / mark).is_symlink()
    if names and not ours:
        shown = ", ".join(f"'{name}'" for name in names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
        raise Refused(f"'{folder}' holds other files ({shown}) and nothing of cad_exp: give a new folder as {key}")


def claim(folder: Path, mark: str = MARK, key: str = "hydra.run.dir", ignored: str | None = None) -> Path:
    """Make the folder ours, if it is not yet; returns its mark. Refused as by `check`, UserError if it cannot be."""
    check(folder, mark, key, ignored)
    try:
        (folder / mark).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Refused(f"nothing can be written into '{folder}' ({error.strerror}): give another {key}") from None
    return folder / mark


def check_settings(folder: Path, config: dict[str, Any]) -> None:
    """Refused if a finished run lies there, and a setting that both have and that can change a number differs.

    A setting that only one of them knows is the code's, which may change.
    """
    before = published(folder).get("config") if remains(folder) else None
    if not isinstance(before, dict):
        return
    if changed := differences(effective(before), plain(effective(config)), common=True):
        key, old, new = changed[0]
        raise Refused(
            f"'{folder}' holds a finished run with other settings ({key} was {old}, now {new}): "
            "give another hydra.run.dir, or delete that folder yourself"
        )


@contextmanager
def alone(folder: Path, ignored: str | None = None) -> Iterator[None]:
    """Claim a run's folder and hold it: a second process with the same run waits here, and then finds it finished."""
    lock = FileLock(claim(folder, ignored=ignored) / "lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        console.say(f"  another process is at work in {folder}: waiting for it")
        lock.acquire()
    except OSError as error:
        raise Refused(
            f"nothing can be written into '{folder}' ({error.strerror}): give another hydra.run.dir"
        ) from None
    try:
        _recover(folder)
        yield
    finally:
        lock.release()


def held(folder: Path) -> bool:
    """Whether another process is at work there."""
    if not (folder / MARK).is_dir():
        return False
    try:
        with FileLock(folder / MARK / "lock", timeout=0):
            return False
    except Timeout:
        return True


@contextmanager
def attempt(folder: Path) -> Iterator[Path]:
    """Lend an empty place in which a run makes its files; gone after a success, kept after a failure to look at."""
    work = folder / MARK / "work"
    if not distributed.main():
        yield work
        return
    claim(folder)
    _clear(work)
    work.mkdir()
    yield work
    _clear(work)


def publish(work: Path) -> None:
    """Give the files that a complete run made in `work` their places, and remove what is left of the run before.

    May be called again when more files came. UserError, and nothing is replaced, if a place is taken by a foreign file.
    """
    folder, content = work.parents[1], load_results(work)
    before, made = set(published(folder).get("files", {})), [*content["run"]["files"], FILE]
    for name in made:
        _check_place(folder, name, work / name, before)
    for name in made:
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        # by way of a draft inside the mark: a run that is killed right here leaves nothing beside the files of people
        link(work / name, draft := folder / MARK / f"draft{place.suffix}")
        os.replace(draft, place)
    for name in sorted(before.difference(made)):
        _remove(folder, name)
    kept = {"files": dict.fromkeys(made), "config": content["run"].get("config")}
    write_json(folder / MARK / "published.json", kept)


def adopt(folder: Path, name: str) -> None:
    """Count a file that was made after the run among the run's own: the next run may replace it."""
    kept = published(folder)
    if kept and name not in kept["files"]:
        write_json(folder / MARK / "published.json", kept | {"files": {**kept["files"], name: None}})


def swept(folder: Path) -> bool:
    """Return whether a sweep of cad_exp made the folder: Hydra's multirun.yaml in it names our callback."""
    file = folder / "multirun.yaml"
    try:
        return not file.is_symlink() and b"cad_exp.cli.job.Sweep" in file.read_bytes()
    except OSError:
        return False


def published(folder: Path) -> dict[str, Any]:
    """Return the names and the config of the run whose files lie in the folder; {} where there is none."""
    found = read_json(folder / MARK / "published.json") or {}
    return found if isinstance(found.get("files"), dict) else {}


def remains(folder: Path) -> bool:
    """Whether any file of a finished run is still there."""
    return any(os.path.lexists(folder / name) for name in published(folder).get("files", {}))


def _check_place(folder: Path, name: str, made: Path, before: set[str]) -> None:
    place = inside(folder, name)
    if place is None:
        raise UserError(f"'{folder / name}' leads out of the run's folder through a link: replace the link by a folder")
    taken = next((p for p in place.parents if p.is_relative_to(folder) and p.exists() and not p.is_dir()), None)
    free = not os.path.lexists(place) or (name in before and not place.is_dir()) or _same(place, made)
    if taken is None and free:
        return
    raise UserError(
        f"'{taken or place}' is not of this run, and nothing was replaced: move it away and give the same command again"
    )


def _same(place: Path, made: Path) -> bool:
    """Whether a file is the one that is to come: left by a run that was killed in `publish`."""
    return place.is_file() and not place.is_symlink() and file_digest(place) == file_digest(made)


def _remove(folder: Path, name: str) -> None:
    """Remove a file of the run before, and the folders that are empty then; never through a link."""
    place = inside(folder, name)
    if place is None or not os.path.lexists(place) or (place.is_dir() and not place.is_symlink()):
        return
    place.unlink()
    for parent in place.parents:
        if parent == folder or any(parent.iterdir()):
            return
        parent.rmdir()


def _recover(folder: Path) -> None:
    """Bring to its end what a complete run, killed while it gave its files their places, had begun."""
    work = folder / MARK / "work"
    try:
        content = load_results(work)
    except UserError:
        return
    if content["run"].get("complete") and harm(work, content) is None:
        publish(work)
        _clear(work)


def _clear(work: Path) -> None:
    if work.is_symlink():
        work.unlink()
    shutil.rmtree(work, ignore_errors=True)
