"""The folder of a cache: the tag that makes it one, its locks and drafts, and the places of its entries.

Only a folder with our `CACHEDIR.TAG` is a cache. An entry appears by one rename, complete, and goes by one rename. What
lies in a cache and is no entry is never removed.
"""

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cad_exp.pipeline.cache import leases
from cad_exp.pipeline.cache.entry import ENTRY, is_entry
from cad_exp.utils.errors import UserError
from cad_exp.utils.io import CLOSED, FULL, atomic, read_json, system_error

DRAFTS, LOCKS, USERS, ASIDE = ".drafts", ".locks", ".users", ".damaged"
TAG, VERSION = "CACHEDIR.TAG", "# cad_exp cache, version 1"
SIGNATURE = "Signature: 8a477f597d28d172789f06886806bc55"  # https://bford.info/cachedir/: backups leave it out


class CacheFolder:
    """The places in the cache at `folder`. One that is absent or empty becomes a cache.

    Raises UserError for a file, and for a folder with anything else in it.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder).expanduser()
        _claim(self.folder)

    def entries(self) -> Iterator[tuple[Path, dict[str, Any]]]:
        """Yield every entry's folder and the content of its entry.json."""
        for place in self.places():
            if is_entry(place):
                yield place, read_json(place / ENTRY) or {}

    def others(self) -> list[Path]:
        """Return what lies at an entry's place and is none: nobody reads it, and nobody removes it."""
        return [place for place in self.places() if not is_entry(place)]

    def places(self) -> list[Path]:
        """Return all that lies where entries lie, sorted, entries or not."""
        stages = [stage for stage in self.folder.glob("[!.]*") if stage.is_dir()]
        inside = [[stage] if stage.is_symlink() else stage.iterdir() for stage in stages]
        return sorted(place for places in inside for place in places)

    def lock(self, key: str) -> Path:
        """Name the lock file of an entry; some entries share one."""
        folder = self.folder / LOCKS
        folder.mkdir(parents=True, exist_ok=True)
        return folder / key[:8]

    def draft(self) -> Path:
        """Make a new empty folder for what is not finished yet."""
        draft = self.folder / DRAFTS / leases.own_name()
        draft.mkdir(parents=True)
        return draft

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """Lend an empty folder among the drafts (the system's, where the cache cannot be written), gone afterwards."""
        try:
            folder = self.draft()
        except OSError as error:
            if error.errno not in CLOSED:
                raise
            folder = Path(tempfile.mkdtemp(prefix="cad_exp-"))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def take_away(self, place: Path) -> Path:
        """Remove an entry, for the holder of its lock: by one rename, then file by file. Returns where it was moved."""
        doomed = self.folder / DRAFTS / leases.own_name()
        doomed.parent.mkdir(parents=True, exist_ok=True)
        os.replace(place, doomed)
        shutil.rmtree(doomed, ignore_errors=True)
        return doomed

    def set_aside(self, place: Path) -> Path:
        """Move what is not ours to remove out of an entry's place. Returns its new place."""
        aside = self.folder / ASIDE / f"{place.parent.name}-{place.name}-{leases.own_name()}"
        aside.parent.mkdir(parents=True, exist_ok=True)
        os.replace(place, aside)
        return aside

    def sweep_drafts(self) -> None:
        """Remove what killed processes of this machine left half-made."""
        for draft in (self.folder / DRAFTS).glob("*"):
            known = leases.owner(draft.name)
            if known and known[0] == leases.HOST and not _alive(known[1]) and not draft.is_symlink():
                shutil.rmtree(draft, ignore_errors=True)

    @contextmanager
    def writing(self, what: str) -> Iterator[None]:
        """Turn a full disk, and a cache that cannot be written, into a sentence for people (UserError)."""
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
                    f"the cache '{self.folder}' lacks {what} for this run and cannot be written ({found.strerror}): "
                    "give another runtime.cache"
                ) from error
            raise


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


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
        refuse_link(folder / name)


def refuse_link(folder: Path) -> None:
    """Raise UserError for a link inside a cache."""
    if folder.is_symlink():
        raise UserError(f"'{folder}' is a link, and a cache has none inside: link the whole cache instead")


def _check_tag(folder: Path, another: str) -> None:
    lines = (folder / TAG).read_text(encoding="utf-8", errors="replace").splitlines()
    if SIGNATURE not in lines[:1] or not any(line.startswith("# cad_exp cache") for line in lines):
        raise UserError(f"'{folder}' is the cache of another program ({TAG} says so): {another}")
    if VERSION not in lines:
        raise UserError(f"'{folder}' is the cache of another version of cad_exp ({TAG} says so): {another}")
