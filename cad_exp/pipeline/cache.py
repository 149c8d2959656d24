"""The stage cache: what a finished stage made, found again by everything that it depends on, and never trusted unread.

`python -m cad_exp cache` lists and prunes it. Only a folder with our `CACHEDIR.TAG` is a cache. An entry is a folder
`cache/<stage>/<key>/` that holds the stage's files and `entry.json`, which lists what the key stands for and the
SHA-256 of every file. It appears by one rename, complete, and goes by one rename. What lies in a cache and is no entry
is never removed.
"""

import os
import re
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock, Timeout

from cad_exp.pipeline import leases
from cad_exp.utils import console, distributed
from cad_exp.utils.errors import UserError
from cad_exp.utils.hashing import digest, file_digest, versions
from cad_exp.utils.io import CLOSED, FULL, atomic, permit, plain, read_json, system_error, write_json

ENTRY, DRAFTS, LOCKS, USERS, ASIDE = "entry.json", ".drafts", ".locks", ".users", ".damaged"
TAG, VERSION = "CACHEDIR.TAG", "# cad_exp cache, version 1"
SIGNATURE = "Signature: 8a477f597d28d172789f06886806bc55"  # https://bford.info/cachedir/: backups leave it out
POLL = 5.0  # seconds between two looks at an entry that another process is making
Make = Callable[[Path], Any]
_KEY = re.compile("[0-9a-f]{24}")


class Cache:
    """Entries below `folder`. `made` and `reused` count, by stage, what this object handed out.

    A folder that is absent or empty becomes a cache. UserError for a file, and for a folder with anything else in it.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder).expanduser()
        self.made: Counter[str] = Counter()
        self.reused: Counter[str] = Counter()
        self._lease: leases.Lease | None = None
        _claim(self.folder)

    def get(self, stage: str, inputs: dict[str, Any], make: Make, code: str = "", shared: bool = False) -> Path:
        """The folder of the entry for `inputs`; what is absent or damaged is made by `make(draft folder)` first.

        code: hash of the code that makes the entry.
        shared: all processes of the run call this together and make the entry in common (the first writes it); else
        each process asks for entries of its own.
        Raises UserError when the disk is full, or when the entry is not there and the cache cannot be written.
        """
        content = _asked(stage, inputs, code)
        place = self.folder / stage / digest(content)
        writer = not shared or distributed.main()
        _no_link(place.parent)
        lock = None
        self._use()
        try:
            with self._writing(stage):
                found = distributed.agree(self._whole(place)) if shared else self._whole(place)
                if not found:
                    lock = FileLock(self._lock(place.name)) if writer else None
                    found = self._wait(lock, place, shared)
                self.reused[stage] += found
                if not found:
                    self.made[stage] += 1
                    self._make(place, {**content, "key": place.name}, make, writer)
                    if shared:
                        distributed.barrier()
        finally:
            if lock is not None:
                lock.release()
        return place

    def key(self, stage: str, inputs: dict[str, Any], code: str = "") -> str:
        """The name of the entry for `inputs`."""
        return digest(_asked(stage, inputs, code))

    def holds(self, stage: str, inputs: dict[str, Any], code: str = "") -> bool:
        """Whether an undamaged entry for `inputs` lies there."""
        place = self.folder / stage / self.key(stage, inputs, code)
        return is_entry(place) and damage(place) is None

    def close(self) -> None:
        """Say that this object's entries are in use no longer: then they can be pruned."""
        if self._lease is not None:
            self._lease.close()
            self._lease = None

    def _use(self) -> None:
        """Before anything is looked up: from now on it is in use. A cache that cannot be written is not pruned."""
        if self._lease is None:
            with suppress(OSError):
                self._lease = leases.Lease(self.folder / USERS)
        else:
            self._lease.renew()

    @contextmanager
    def _writing(self, stage: str) -> Iterator[None]:
        """A full disk, and a cache that cannot be written, in a person's words."""
        try:
            yield
        except UserError:
            raise
        except Exception as error:
            found = system_error(error)
            if found is not None and found.errno in FULL:
                raise UserError(
                    f"the disk of '{self.folder}' is full: make room (`python -m cad_exp cache --prune` helps), then "
                    "give the same command again, it continues where it stopped"
                ) from error
            if found is not None and found.errno in CLOSED and not os.access(self.folder, os.W_OK):
                raise UserError(
                    f"the cache '{self.folder}' lacks {stage} for this run and cannot be written ({found.strerror}): "
                    "give another runtime.cache"
                ) from error
            raise

    def _whole(self, place: Path) -> bool:
        """Whether an undamaged entry lies there. It is marked as used first, so that nobody prunes it meanwhile."""
        if not is_entry(place):
            return False
        with suppress(OSError), FileLock(self._lock(place.name)):
            os.utime(place / ENTRY)
        return damage(place) is None

    def _verified(self, place: Path) -> bool:
        """As `_whole`, for the holder of its lock: what is damaged, or no entry, is reported and makes room."""
        if not os.path.lexists(place):
            return False
        fault = damage(place)
        if fault is None:
            with suppress(OSError):
                os.utime(place / ENTRY)
            return True
        what = f"  cache: {place.parent.name} {place.name[:8]} is damaged ({fault}): made again"
        if not is_entry(place) or foreign(place):
            aside = self.folder / ASIDE / f"{place.parent.name}-{place.name}-{leases.own_name()}"
            aside.parent.mkdir(parents=True, exist_ok=True)
            os.replace(place, aside)
            what += f"; what lay there is now {aside.relative_to(self.folder)}"
        else:
            self._take_away(place)
        console.say(what, style="yellow")
        return False

    def _wait(self, lock: FileLock | None, place: Path, shared: bool) -> bool:
        """Whether the entry is there, waiting while another run makes it; all processes of a run get one answer."""
        told = False
        while True:
            answer = None
            if lock is not None:
                try:
                    lock.acquire(timeout=0 if not told else POLL)
                    answer = self._verified(place)
                except Timeout:
                    pass
            if shared:
                answer = distributed.agree(answer)
            if answer is not None:
                return answer
            if not told:
                console.say(f"  another run is making this {place.parent.name} now: waiting for it")
            told = True

    def _make(self, place: Path, content: dict[str, Any], make: Make, writer: bool) -> None:
        draft, start = self._draft(), time.time()
        try:
            make(draft)
            if not writer:
                return
            permit(draft)
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
                if damage(place) is not None:  # else another machine without our locks was faster, and as good
                    raise
        finally:
            shutil.rmtree(draft, ignore_errors=True)

    def _draft(self) -> Path:
        draft = self.folder / DRAFTS / leases.own_name()
        draft.mkdir(parents=True)
        return draft

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """An empty folder among the drafts (the system's, where the cache cannot be written), gone afterwards."""
        try:
            folder = self._draft()
        except OSError as error:
            if error.errno not in CLOSED:
                raise
            folder = Path(tempfile.mkdtemp(prefix="cad_exp-"))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    @contextmanager
    def hold(self, place: Path) -> Iterator[None]:
        """Nobody makes, covers or prunes this entry meanwhile. In a cache that cannot be written nobody does anyway."""
        held = nullcontext()
        try:
            held = FileLock(self._lock(place.name)).acquire()
        except OSError as error:
            if error.errno not in CLOSED:
                raise
        with held:
            yield

    def covered(self, place: Path) -> bool:
        """Whether `cover` has changed an entry's files."""
        return bool((read_json(place / ENTRY) or {}).get("covered"))

    def cover(self, place: Path, change: Make) -> None:
        """Replace the files of an entry by what `change(folder)` makes of a copy; it stays the entry of its inputs.

        For what must not be kept as it was made. The entry says so (`covered`), and is covered once only.
        """
        if self.covered(place):
            return
        with self._writing(f"covered {place.parent.name}"), self.hold(place):
            content = read_json(place / ENTRY)
            if content is None or content.get("covered"):
                return
            with self.scratch() as draft:
                shutil.copytree(place, draft, dirs_exist_ok=True)
                change(draft)
                files = {name: file_digest(draft / name) for name in content["files"]}
                write_json(draft / ENTRY, content | {"files": files, "covered": True})
                self._take_away(place)
                os.replace(draft, place)

    def _take_away(self, place: Path) -> Path:
        """Remove an entry, for the holder of its lock: by one rename, then file by file. Returns where it was moved."""
        doomed = self.folder / DRAFTS / leases.own_name()
        doomed.parent.mkdir(parents=True, exist_ok=True)
        os.replace(place, doomed)
        shutil.rmtree(doomed, ignore_errors=True)
        return doomed

    def _lock(self, key: str) -> Path:
        folder = self.folder / LOCKS
        folder.mkdir(parents=True, exist_ok=True)
        return folder / key[:8]

    def entries(self) -> Iterator[tuple[Path, dict[str, Any]]]:
        """Every entry's folder and the content of its entry.json."""
        for place in self._places():
            if is_entry(place):
                yield place, read_json(place / ENTRY) or {}

    def others(self) -> list[Path]:
        """What lies at an entry's place and is none: nobody reads it, and nobody removes it."""
        return [place for place in self._places() if not is_entry(place)]

    def _places(self) -> list[Path]:
        stages = [stage for stage in self.folder.glob("[!.]*") if stage.is_dir()]
        inside = [[stage] if stage.is_symlink() else stage.iterdir() for stage in stages]
        return sorted(place for places in inside for place in places)

    def sweep_drafts(self) -> None:
        """Remove what killed processes of this machine left half-made."""
        for draft in (self.folder / DRAFTS).glob("*"):
            known = leases.owner(draft.name)
            if known and known[0] == leases.HOST and not _alive(known[1]) and not draft.is_symlink():
                shutil.rmtree(draft, ignore_errors=True)


def _asked(stage: str, inputs: dict[str, Any], code: str) -> dict[str, Any]:
    """All that the key of an entry stands for."""
    return plain({"stage": stage, "inputs": inputs, "code": code, "versions": versions()})


def _claim(folder: Path) -> None:
    """Make an absent or empty folder a cache. UserError unless the folder is one then."""
    another = "give another folder as runtime.cache"
    try:
        names = {path.name for path in folder.iterdir()} if os.path.lexists(folder) else set()
        if TAG in names:
            _check_tag(folder, another)
        elif any(not re.fullmatch(r"\.CACHEDIR-\d+\.TAG", name) for name in names):  # drafts of the tag itself
            raise UserError(
                f"'{folder}' holds other files and is no cache of cad_exp (there is no {TAG} in it): {another}"
            )
        else:
            with atomic(folder / TAG) as draft:
                draft.write_text(f"{SIGNATURE}\n{VERSION}\n# It can be deleted at any time.\n", encoding="utf-8")
    except NotADirectoryError:
        raise UserError(f"'{folder}' cannot be a cache, for it is a file or lies below one: {another}") from None
    except OSError as error:
        raise UserError(f"'{folder}' cannot be used as a cache ({error.strerror}): {another}") from None
    for name in (DRAFTS, LOCKS, USERS, ASIDE):
        _no_link(folder / name)


def _no_link(folder: Path) -> None:
    if folder.is_symlink():
        raise UserError(f"'{folder}' is a link, and a cache has none inside: link the whole cache instead")


def _check_tag(folder: Path, another: str) -> None:
    lines = (folder / TAG).read_text(encoding="utf-8", errors="replace").splitlines()
    if SIGNATURE not in lines[:1] or not any(line.startswith("# cad_exp cache") for line in lines):
        raise UserError(f"'{folder}' is the cache of another program ({TAG} says so): {another}")
    if VERSION not in lines:
        raise UserError(f"'{folder}' is the cache of another version of cad_exp ({TAG} says so): {another}")


def is_entry(place: Path) -> bool:
    """Whether an entry lies there: a real folder in a real folder, with the entry.json of just this key."""
    if not _KEY.fullmatch(place.name) or place.is_symlink() or place.parent.is_symlink() or not place.is_dir():
        return False
    return not (place / ENTRY).is_symlink() and _content(place) is not None


def _content(place: Path) -> dict[str, Any] | None:
    """What entry.json says; None where it is not the one that was written for this key."""
    content = read_json(place / ENTRY)
    if content is None or content.get("stage") != place.parent.name or not isinstance(content.get("files"), dict):
        return None
    try:
        fits = digest({key: content.get(key) for key in ("stage", "inputs", "code", "versions")}) == place.name
    except RecursionError:
        return None
    return content if fits and content["files"] else None


def damage(place: Path) -> str | None:
    """What is wrong with an entry, by its checksums; None when all is well."""
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
    """The first file or link in an entry's folder that the entry does not list; None without any."""
    listed = {ENTRY, *(read_json(place / ENTRY) or {}).get("files", {})}
    for path in sorted(place.rglob("*")):
        name = path.relative_to(place).as_posix()
        if path.is_symlink() or (not path.is_dir() and name not in listed):
            return name
    return None


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def entry_size(place: Path) -> int:
    total = 0
    for path in place.rglob("*"):
        with suppress(OSError):  # gone meanwhile
            total += path.lstat().st_size if not path.is_dir() else 0
    return total


def last_used(place: Path) -> float:
    """When the entry was last used (seconds since 1970)."""
    try:
        return (place / ENTRY).stat().st_mtime
    except OSError:
        return 0.0


class Pruned(NamedTuple):
    """What `prune` removed, how many bytes, and what it left although it was asked to remove it: place and reason."""

    number: int
    size: int
    left: list[tuple[Path, str]]


def prune(cache: Cache, stage: str | None = None, older_than: float = 0.0, damaged: bool = False) -> Pruned:
    """Remove entries of a stage (None: all) not used for `older_than` days, or only damaged ones.

    What a running process has looked up stays, and so does all that is no entry of this cache.
    """
    number, total, left = 0, 0, []
    cache.sweep_drafts()
    for place in cache._places():
        if stage not in (None, place.parent.name):
            continue
        if not is_entry(place):
            left.append((place, "is no entry"))
            continue
        if (time.time() - last_used(place)) / 86400 < older_than or (damaged and damage(place) is None):
            continue
        size = entry_size(place)
        reason = _prune_one(cache, place, older_than)
        if reason:
            left.append((place, reason))
        else:
            number, total = number + 1, total + size
    return Pruned(number, total, left)


def _prune_one(cache: Cache, place: Path, older_than: float) -> str | None:
    """Remove one entry, under its lock; why it was left, else None."""
    if other := foreign(place):
        return f"holds something else ({other})"
    try:
        with FileLock(cache._lock(place.name), timeout=0):
            begun = leases.oldest(cache.folder / USERS)  # now: what a process looks up, it marks under this lock
            if begun is not None and last_used(place) >= begun:
                return "is in use by a running process"
            if (time.time() - last_used(place)) / 86400 < older_than:
                return "was used just now"
            doomed = cache._take_away(place)
    except Timeout:
        return "is in use at this moment"
    except OSError as error:
        return f"cannot be removed ({error.strerror})"
    return f"cannot be removed wholly (see {doomed})" if doomed.exists() else None
