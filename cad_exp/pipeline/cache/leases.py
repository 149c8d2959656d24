"""Which processes use a cache: what one has looked up must not be taken from under it.

A lease is a pair of files: `<host>-<pid>-<hex>`, whose time of change is when the use began, and the same with `.lock`,
which the process holds for as long as it lives; the operating system drops the lock when the process dies. Locks are
not seen from other machines: there a lease counts while its process has looked something up within a day.
"""

from __future__ import annotations

import os
import re
import socket
import time
import uuid
import weakref
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

DAY = 86400.0  # seconds
HOST = socket.gethostname()
_NAME = re.compile(r"(?P<host>.+)-(?P<pid>\d+)-[0-9a-f]{8}")


def own_name() -> str:
    """Make a new name that says whose it is: <host>-<pid>-<8 hex digits>."""
    return f"{HOST}-{os.getpid()}-{uuid.uuid4().hex[:8]}"


def owner(name: str) -> tuple[str, int] | None:
    """Return (host, pid) of a name by `own_name`; None for any other name."""
    found = _NAME.fullmatch(name)
    return (found["host"], int(found["pid"])) if found else None


class Lease:
    """Says, until it is closed or its process ends, that the cache with this folder of leases is in use."""

    def __init__(self, folder: Path):
        """Begin the use. Raises OSError where nothing can be written."""
        folder.mkdir(parents=True, exist_ok=True)
        self.file = folder / own_name()
        self._held = self.file.with_name(f"{self.file.name}.lock")
        lock = FileLock(self._held, thread_local=False)  # whichever thread collects garbage lets it go
        lock.acquire(timeout=0)  # before the other file, which makes it a lease
        self.file.touch()
        self.close = weakref.finalize(self, _drop, lock, self.file, self._held)

    def renew(self) -> None:
        """Show other machines that the process lives."""
        with suppress(OSError):
            os.utime(self._held)


def _drop(lock: FileLock, *files: Path) -> None:
    for file in files:
        with suppress(OSError):
            file.unlink()
    lock.release(force=True)


def oldest(folder: Path) -> float | None:
    """Return when the oldest use that still goes on began (seconds since 1970), or None. Removes dead leases."""
    begun = []
    for file in folder.glob("*"):
        known = owner(file.name)
        if known is None:
            continue
        with suppress(OSError):
            if _alive(file, known[0]):
                begun.append(file.stat().st_mtime)
            else:
                file.unlink()
                file.with_name(f"{file.name}.lock").unlink(missing_ok=True)
    return min(begun, default=None)


def _alive(file: Path, host: str) -> bool:
    held = file.with_name(f"{file.name}.lock")
    if host != HOST:
        return held.exists() and time.time() - held.stat().st_mtime < DAY
    try:
        with FileLock(held, timeout=0):
            return False
    except (Timeout, OSError):  # held, or another user's
        return True
