"""One GPU for each of several runs on one machine: whoever comes first takes the first free one, by a file lock."""

import getpass
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from cad_exp.utils import console, distributed

PAUSE = 1.0  # seconds between two looks at taken GPUs


@contextmanager
def own(device: str) -> Iterator[None]:
    """Meanwhile `cuda` means a GPU that no other run on this machine holds, if there are several and `device` is auto.

    The processes of one run have theirs by rank.
    """
    import torch

    count = torch.cuda.device_count() if device == "auto" and distributed.size() == 1 else 0
    if count < 2:
        yield
        return
    with claim(count, Path(tempfile.gettempdir()) / f"cad_exp-gpus-{getpass.getuser()}") as index:
        torch.cuda.set_device(index)
        yield


@contextmanager
def claim(count: int, folder: Path) -> Iterator[int]:
    """Yield the index of a GPU (below `count`) that no other run below `folder` holds; wait while all are taken.

    The operating system frees the lock when the process ends, even if it is killed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    locks = [FileLock(folder / f"gpu-{name}.lock") for name in _names(count)]
    index = _take(locks)
    if index is None:
        console.say(f"  waiting for a GPU: all {count} are taken by other runs")
        while index is None:
            time.sleep(PAUSE)
            index = _take(locks)
    try:
        yield index
    finally:
        locks[index].release()


def _take(locks: list[FileLock]) -> int | None:
    for index, lock in enumerate(locks):
        try:
            lock.acquire(blocking=False)
        except Timeout:
            continue
        return index
    return None


def _names(count: int) -> list[str]:
    """Return what the machine calls the GPUs: CUDA_VISIBLE_DEVICES=2,3 makes number 2 this process's first."""
    given = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return given[:count] if len(given) >= count else [str(index) for index in range(count)]
