"""Remove entries of a cache, but never what a running process uses or what is no entry."""

import time
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock, Timeout

from cad_exp.pipeline.cache import leases
from cad_exp.pipeline.cache.entry import damage, entry_size, foreign, is_entry, last_used
from cad_exp.pipeline.cache.folder import USERS, CacheFolder


class Pruned(NamedTuple):
    """What `prune` removed, how many bytes, and what it left although it was asked to remove it: place and reason."""

    number: int
    size: int
    left: list[tuple[Path, str]]


def prune(cache: CacheFolder, stage: str | None = None, older_than: float = 0.0, damaged: bool = False) -> Pruned:
    """Remove entries of a stage (None: all) not used for `older_than` days, or only damaged ones.

    What a running process has looked up stays, and so does all that is no entry of this cache.
    """
    number, total = 0, 0
    left: list[tuple[Path, str]] = []
    cache.sweep_drafts()
    for place in cache.places():
        if stage not in (None, place.parent.name):
            continue
        if not is_entry(place):
            left.append((place, "is no entry"))
            continue
        if _unused_days(place) < older_than or (damaged and damage(place) is None):
            continue
        size = entry_size(place)
        reason = _prune_one(cache, place, older_than)
        if reason:
            left.append((place, reason))
        else:
            number, total = number + 1, total + size
    return Pruned(number, total, left)


def _unused_days(place: Path) -> float:
    return (time.time() - last_used(place)) / leases.DAY


def _prune_one(cache: CacheFolder, place: Path, older_than: float) -> str | None:
    """Remove one entry, under its lock; why it was left, else None."""
    if other := foreign(place):
        return f"holds something else ({other})"
    try:
        with FileLock(cache.lock(place.name), timeout=0):
            begun = leases.oldest(cache.folder / USERS)  # now: what a process looks up, it marks under this lock
            if begun is not None and last_used(place) >= begun:
                return "is in use by a running process"
            if _unused_days(place) < older_than:
                return "was used just now"
            doomed = cache.take_away(place)
    except Timeout:
        return "is in use at this moment"
    except OSError as error:
        return f"cannot be removed ({error.strerror})"
    return f"cannot be removed wholly (see {doomed})" if doomed.exists() else None
