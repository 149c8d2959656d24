"""The stage cache: what a finished stage made, found again by everything that it depends on, and never trusted unread.

`python -m cad_exp.cache` lists and prunes it. An entry is a folder `cache/<stage>/<key>/` that holds the stage's files
and `entry.json`, which lists what the key stands for and the SHA-256 of every file. It appears by one rename, complete.
"""

import argparse
import errno
import json
import os
import shutil
import socket
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from cad_exp import parallel, terminal
from cad_exp.errors import UserError, choose
from cad_exp.files import plain, write_json
from cad_exp.identity import code_version, digest, file_digest, versions

ENTRY, DRAFTS, LOCKS = "entry.json", ".drafts", ".locks"
POLL = 5.0  # seconds between two looks at an entry that another process is making
Make = Callable[[Path], Any]


class Cache:
    """Entries below `folder`. `made` and `reused` count, by stage, what this object handed out."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.made: Counter[str] = Counter()
        self.reused: Counter[str] = Counter()

    def get(
        self, stage: str, modules: tuple[str, ...], inputs: dict[str, Any], make: Make, shared: bool = False
    ) -> Path:
        """The folder of the entry for `inputs`; what is absent or damaged is made by `make(draft folder)` first.

        modules: those of the package whose code makes the entry. shared: all processes of the run call this together
        and make the entry in common (the first writes it); else each process asks for entries of its own.
        Raises UserError when the disk is full.
        """
        content = plain({"stage": stage, "inputs": inputs, "code": code_version(*modules), "versions": versions()})
        key = digest(content)
        place = self.folder / stage / key
        writer = not shared or parallel.main()
        lock = FileLock(self._lock(key)) if writer else None
        try:
            found = parallel.agree(whole(place)) if shared else whole(place)
            found = found or self._wait(lock, place, shared)
            self.reused[stage] += found
            if not found:
                self.made[stage] += 1
                self._make(place, {**content, "key": key}, make, writer)
                if shared:
                    parallel.barrier()
        finally:
            if lock is not None:
                lock.release()
        return place

    def _wait(self, lock: FileLock | None, place: Path, shared: bool) -> bool:
        """Whether the entry is there, waiting while another run makes it; all processes of a run get one answer."""
        told = False
        while True:
            answer = None
            if lock is not None:
                try:
                    lock.acquire(timeout=0 if not told else POLL)
                    answer = verified(place)
                except Timeout:
                    pass
            if shared:
                answer = parallel.agree(answer)
            if answer is not None:
                return answer
            if not told:
                terminal.say(f"  another run is making this {place.parent.name} now: waiting for it")
            told = True

    def _make(self, place: Path, content: dict[str, Any], make: Make, writer: bool) -> None:
        draft = self.folder / DRAFTS / f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        start = time.time()
        try:
            draft.mkdir(parents=True)
            make(draft)
            if not writer:
                return
            files = {p.relative_to(draft).as_posix(): file_digest(p) for p in sorted(draft.rglob("*")) if p.is_file()}
            done = {
                "created": datetime.now(UTC).isoformat(timespec="seconds"),
                "seconds": round(time.time() - start, 3),
            }
            write_json(draft / ENTRY, {**content, "files": files, **done})
            place.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.replace(draft, place)
            except OSError:
                if not verified(place):  # another machine without our locks was faster, and its entry is as good
                    raise
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise UserError(
                f"the disk of '{self.folder}' is full: make room (`python -m cad_exp.cache --prune` helps), then give "
                "the same command again, it continues where it stopped"
            ) from error
        finally:
            shutil.rmtree(draft, ignore_errors=True)

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """An empty folder among the drafts, gone afterwards."""
        folder = self.folder / DRAFTS / f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        folder.mkdir(parents=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    @contextmanager
    def hold(self, place: Path) -> Iterator[None]:
        """Nobody makes, covers or prunes this entry meanwhile."""
        with FileLock(self._lock(place.name)):
            yield

    def covered(self, place: Path) -> bool:
        """Whether `cover` has changed an entry's files."""
        return bool((_read(place / ENTRY) or {}).get("covered"))

    def cover(self, place: Path, change: Make) -> None:
        """Replace the files of an entry by what `change(folder)` makes of a copy; it stays the entry of its inputs.

        For what must not be kept as it was made. The entry says so (`covered`), and is covered once only.
        """
        with self.hold(place):
            content = _read(place / ENTRY)
            if content is None or content.get("covered"):
                return
            with self.scratch() as draft:
                shutil.copytree(place, draft, dirs_exist_ok=True)
                change(draft)
                files = {name: file_digest(draft / name) for name in content["files"]}
                write_json(draft / ENTRY, content | {"files": files, "covered": True})
                shutil.rmtree(place)
                os.replace(draft, place)

    def _lock(self, key: str) -> Path:
        folder = self.folder / LOCKS
        folder.mkdir(parents=True, exist_ok=True)
        return folder / key[:8]

    def entries(self) -> Iterator[tuple[Path, dict[str, Any]]]:
        """Every entry's folder and the content of its entry.json ({} where that cannot be read)."""
        for place in sorted(self.folder.glob("[!.]*/*")):
            if place.is_dir():
                yield place, _read(place / ENTRY) or {}

    def sweep_drafts(self) -> None:
        """Remove what killed processes of this machine left half-made."""
        for draft in (self.folder / DRAFTS).glob("*"):
            host, pid, _ = draft.name.rsplit("-", 2)
            if host == socket.gethostname() and not _alive(int(pid)):
                shutil.rmtree(draft, ignore_errors=True)


def whole(place: Path) -> bool:
    """Whether an undamaged entry lies there."""
    if not place.exists() or damage(place) is not None:
        return False
    os.utime(place / ENTRY)  # the time of last use, for pruning
    return True


def verified(place: Path) -> bool:
    """As `whole`, for the holder of its lock: a damaged entry is reported and removed."""
    if whole(place):
        return True
    if not place.exists():
        return False
    fault = damage(place)
    terminal.say(f"  cache: {place.parent.name} {place.name[:8]} is damaged ({fault}): made again", style="yellow")
    shutil.rmtree(place, ignore_errors=True)
    return False


def damage(place: Path) -> str | None:
    """What is wrong with an entry, by its checksums; None when all is well."""
    content = _read(place / ENTRY)
    if content is None:
        return f"{ENTRY} cannot be read"
    if digest({key: content.get(key) for key in ("stage", "inputs", "code", "versions")}) != place.name:
        return f"{ENTRY} is not what it was"
    files = content.get("files")
    if not isinstance(files, dict) or not files:
        return f"{ENTRY} lists no files"
    for name, expected in files.items():
        if not (place / name).is_file():
            return f"{name} is missing"
        if file_digest(place / name) != expected:
            return f"{name} is not what was written"
    return None


def _read(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold a run's folder: a second process with the same run waits here, and then finds it finished."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        terminal.say(f"  another process is at work in {folder}: waiting for it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _size(place: Path) -> int:
    return sum(p.stat().st_size for p in place.rglob("*") if p.is_file())


def _used(place: Path) -> float:
    """When the entry was last used (seconds since 1970)."""
    path = place / ENTRY
    return path.stat().st_mtime if path.exists() else 0.0


def _show(cache: Cache) -> None:
    from rich.table import Table

    stages: dict[str, list[Path]] = {}
    for place, _ in cache.entries():
        stages.setdefault(place.parent.name, []).append(place)
    table = Table(title=f"stage cache {cache.folder}", title_justify="left", header_style="bold")
    for column in ("stage", "entries", "MiB", "seconds to make", "last used"):
        table.add_column(column, justify="left" if column == "stage" else "right")
    for stage, places in stages.items():
        seconds = sum((_read(p / ENTRY) or {}).get("seconds", 0.0) for p in places)
        last = datetime.fromtimestamp(max(map(_used, places))).isoformat(" ", "minutes")
        size = sum(map(_size, places)) / 2**20
        table.add_row(stage, f"{len(places):,}", f"{size:,.1f}", f"{seconds:,.0f}", last)
    terminal.console().print(table)


def prune(cache: Cache, stage: str | None = None, older_than: float = 0.0, damaged: bool = False) -> tuple[int, int]:
    """Remove entries of a stage (None: all) not used for `older_than` days, or only damaged ones: (number, bytes)."""
    number = total = 0
    cache.sweep_drafts()
    for place, _ in list(cache.entries()):
        if stage not in (None, place.parent.name) or (time.time() - _used(place)) / 86400 < older_than:
            continue
        if damaged and damage(place) is None:
            continue
        try:
            with FileLock(cache._lock(place.name), timeout=0):
                number, total = number + 1, total + _size(place)
                shutil.rmtree(place, ignore_errors=True)
        except Timeout:  # in use at this moment
            continue
    return number, total


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m cad_exp.cache", description="List or prune the stage cache.")
    parser.add_argument("folder", nargs="?", default="outputs/cache", help="the cache (runtime.cache of the runs)")
    parser.add_argument("--prune", action="store_true", help="remove entries; a run that needs one makes it again")
    parser.add_argument("--stage", help="only of this stage, for example images")
    parser.add_argument(
        "--older-than", type=float, default=0.0, metavar="DAYS", help="only what was not used for so long"
    )
    parser.add_argument("--damaged", action="store_true", help="only what fails its checksums")
    given = parser.parse_args(arguments)
    cache = Cache(given.folder)
    try:
        if not cache.folder.is_dir():
            raise UserError(f"there is no cache at '{cache.folder}': give the folder that runtime.cache names")
        stages = sorted({place.parent.name for place, _ in cache.entries()})
        if given.stage and stages:
            choose(given.stage, stages, "stage in this cache")
        if given.prune:
            number, size = prune(cache, given.stage, given.older_than, given.damaged)
            terminal.say(f"removed {number:,} entries, {size / 2**20:,.1f} MiB")
        elif given.damaged:
            for place, _ in cache.entries():
                fault = damage(place)
                if fault:
                    terminal.say(f"{place.parent.name}/{place.name}: {fault}")
        else:
            _show(cache)
    except UserError as error:
        terminal.error(str(error))
        return 1
    return 0


if __name__ == "__main__":
    from cad_exp import entry

    sys.exit(entry.run(main))
