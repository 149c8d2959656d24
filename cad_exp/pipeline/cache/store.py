"""Hand out the entries of a cache, and make what is absent or damaged.

Of several runs that ask for the same entry, one makes it and the others wait.
"""

import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from cad_exp.pipeline.cache import leases
from cad_exp.pipeline.cache.entry import ENTRY, damage, foreign, is_entry, mark_used, seal
from cad_exp.pipeline.cache.folder import USERS, CacheFolder, refuse_link
from cad_exp.utils import console, distributed
from cad_exp.utils.hashing import digest, file_digest, versions
from cad_exp.utils.io import CLOSED, plain, read_json, write_json

POLL = 5.0  # seconds between two looks at an entry that another process is making
Make = Callable[[Path], Any]


class Cache(CacheFolder):
    """Entries below `folder`. `made` and `reused` count, by stage, what this object handed out."""

    def __init__(self, folder: str | Path):
        super().__init__(folder)
        self.made: Counter[str] = Counter()
        self.reused: Counter[str] = Counter()
        self._lease: leases.Lease | None = None

    def get(self, stage: str, inputs: dict[str, Any], make: Make, code: str = "", shared: bool = False) -> Path:
        """Return the folder of the entry for `inputs`; what is absent or damaged is made by `make(draft folder)` first.

        Args:
            stage: what sort of entry; the name of the folder that holds it.
            inputs: all that the entry depends on, but for code and libraries.
            make: fills an empty folder.
            code: hash of the code that makes the entry.
            shared: all processes of the run call this together and make the entry in common (the first writes it);
                else each process asks for entries of its own.

        Raises:
            UserError: the disk is full, or the entry is not there and the cache cannot be written.
        """
        content = _asked(stage, inputs, code)
        place = self.folder / stage / digest(content)
        writer = not shared or distributed.main()
        refuse_link(place.parent)
        lock = None
        self._use()
        try:
            with self.writing(stage):
                found = distributed.agree(self._whole(place)) if shared else self._whole(place)
                if not found:
                    lock = FileLock(self.lock(place.name)) if writer else None
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
        """Return the name of the entry for `inputs`."""
        return digest(_asked(stage, inputs, code))

    def holds(self, stage: str, inputs: dict[str, Any], code: str = "") -> bool:
        """Return whether an undamaged entry for `inputs` lies there."""
        place = self.place(stage, inputs, code)
        return is_entry(place) and damage(place) is None

    def place(self, stage: str, inputs: dict[str, Any], code: str = "") -> Path:
        """Return the folder of the entry for `inputs`, whether it is there or not."""
        return self.folder / stage / self.key(stage, inputs, code)

    def close(self) -> None:
        """Say that this object's entries are in use no longer: then they can be pruned."""
        if self._lease is not None:
            self._lease.close()
            self._lease = None

    def _use(self) -> None:
        """Mark the cache as in use, before anything is looked up; one that cannot be written is not pruned."""
        if self._lease is None:
            with suppress(OSError):
                self._lease = leases.Lease(self.folder / USERS)
        else:
            self._lease.renew()

    def _whole(self, place: Path) -> bool:
        """Return whether an undamaged entry lies there, marked as used first so that nobody prunes it meanwhile."""
        if not is_entry(place):
            return False
        with suppress(OSError), FileLock(self.lock(place.name)):
            mark_used(place)
        return damage(place) is None

    def _verified(self, place: Path) -> bool:
        """Check an entry as `_whole` does, for the holder of its lock.

        What is damaged, or no entry, is reported and makes room.
        """
        if not os.path.lexists(place):
            return False
        fault = damage(place)
        if fault is None:
            with suppress(OSError):
                mark_used(place)
            return True
        what = f"  cache: {place.parent.name} {place.name[:8]} is damaged ({fault}): made again"
        if not is_entry(place) or foreign(place):
            what += f"; what lay there is now {self.set_aside(place).relative_to(self.folder)}"
        else:
            self.take_away(place)
        console.say(what, style="yellow")
        return False

    def _wait(self, lock: FileLock | None, place: Path, shared: bool) -> bool:
        """Return whether the entry is there, after waiting while another run makes it.

        All processes of a run get one answer.
        """
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
        draft, start = self.draft(), time.time()
        try:
            make(draft)
            if not writer:
                return
            seal(draft, content, time.time() - start)
            place.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.replace(draft, place)
            except OSError:
                if damage(place) is not None:  # else another machine without our locks was faster, and as good
                    raise
        finally:
            shutil.rmtree(draft, ignore_errors=True)

    @contextmanager
    def hold(self, place: Path) -> Iterator[None]:
        """Keep others from making, redacting or pruning this entry; a cache that cannot be written is safe anyway."""
        held: AbstractContextManager[Any] = nullcontext()
        try:
            held = FileLock(self.lock(place.name)).acquire()
        except OSError as error:
            if error.errno not in CLOSED:
                raise
        with held:
            yield

    def redacted(self, place: Path) -> bool:
        """Return whether `redact` has changed an entry's files."""
        return bool((read_json(place / ENTRY) or {}).get("redacted"))

    def redact(self, place: Path, change: Make) -> None:
        """Replace the files of an entry by what `change(folder)` makes of a copy; it stays the entry of its inputs.

        For what must not be kept as it was made. The entry says so (`redacted`), and is redacted once only.
        """
        if self.redacted(place):
            return
        with self.writing(f"redacted {place.parent.name}"), self.hold(place):
            content = read_json(place / ENTRY)
            if content is None or content.get("redacted"):
                return
            with self.scratch() as draft:
                shutil.copytree(place, draft, dirs_exist_ok=True)
                change(draft)
                files = {name: file_digest(draft / name) for name in content["files"]}
                write_json(draft / ENTRY, content | {"files": files, "redacted": True})
                self.take_away(place)
                os.replace(draft, place)


def _asked(stage: str, inputs: dict[str, Any], code: str) -> dict[str, Any]:
    """Return all that the key of an entry stands for."""
    content: dict[str, Any] = plain({"stage": stage, "inputs": inputs, "code": code, "versions": versions()})
    return content
