"""Make the stages of a run: find them in the cache, make what is missing, share the work between processes.

The runtime owns the device, the precision, the number of threads and the cache, and keeps what it has loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import torch

from cad_exp.models import offload
from cad_exp.models.pipeline import resolve
from cad_exp.pipeline.cache.store import Cache
from cad_exp.pipeline.stage import Derived, Node, Stage, Tick
from cad_exp.utils import console, distributed, progress
from cad_exp.utils.paths import resolve as resolve_path

T = TypeVar("T")
THREADS = torch.get_num_threads()


class Runtime:
    """Where stages are made.

    settings: the group `runtime` of a config; folder: the cache, if the group names none.
    Raises UserError for a device that is not there, and for a folder that is no cache.
    """

    def __init__(self, settings: dict[str, Any], folder: str | Path):
        self.settings, self.cache = settings, Cache(resolve_path(settings["cache"] or folder))
        self.cache.sweep_drafts()
        torch.set_num_threads(settings["threads"] or THREADS)  # the job before may have asked for another number
        self.device, self.precision = resolve(settings["device"], settings["precision"])
        offload.check(settings["offload"], self.device)
        # The number of threads decides in which order a CPU adds up, and so the last bits.
        self.threads = torch.get_num_threads() if self.device.type == "cpu" else None
        self._alone = 0  # stages that this process makes now without the others: they do not wait for what it needs
        self._keys: WeakKeyDictionary[Node[Any], str] = WeakKeyDictionary()
        self._values: WeakKeyDictionary[Node[Any], Any] = WeakKeyDictionary()
        self._places: WeakKeyDictionary[Stage[Any], Path] = WeakKeyDictionary()

    @property
    def machine(self) -> dict[str, Any]:
        """What of the machine decides the last bits of a number."""
        card = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else self.device.type
        return {"device": card, "precision": self.precision, "threads": self.threads}

    def key(self, node: Node[Any]) -> str:
        """Return the node's key, computed once."""
        if node not in self._keys:
            self._keys[node] = node.key(self)
        return self._keys[node]

    def put(self, node: Node[T], value: T) -> None:
        """Give the value of a node, which is then neither loaded nor computed."""
        self._values[node] = value

    def get(self, node: Node[T]) -> T:
        """Return the value of a node; what it needs and the cache lacks is made first."""
        if node not in self._values:
            if isinstance(node, Derived):
                self._values[node] = node.derive(self)
            elif isinstance(node, Stage):
                self.all([node], node.what)
        value: T = self._values[node]
        return value

    def all(self, stages: Sequence[Stage[T]], what: str) -> list[T]:
        """Return the values of stages in order, made where they are missing: each process makes its share first."""
        missing = [stage for stage in stages if stage not in self._values]
        before, works = self._reused(missing), [stage.work for stage in missing]
        with progress.progress(sum(works), what) as tick:
            todo = list(zip(missing, _ticks(tick, works), strict=True))
            apart = [each for each in todo if not each[0].shared]
            if distributed.size() > 1 and apart and not self._alone:
                for stage, own in distributed.share(apart):
                    self.entry(stage, own)
                distributed.barrier()
            places = [self.entry(stage, own) for stage, own in todo]
        self._say_reused(what, self._reused(missing) - before, missing)
        for stage, place in zip(missing, places, strict=True):
            self._places[stage], self._values[stage] = place, stage.load(self, place)
        return [self._values[stage] for stage in stages]

    def place(self, stage: Stage[Any]) -> Path:
        """Return the folder of the files of a stage whose value was asked for; one process alone may ask."""
        return self._places[stage]

    def entry(self, stage: Stage[Any], tick: Tick = lambda *_: None) -> Path:
        """Return the folder of a stage's files in the cache, made if they are missing."""

        def make(draft: Path) -> None:
            self._alone += not stage.shared
            try:
                stage.make(self, draft, tick)
            finally:
                self._alone -= not stage.shared
            if distributed.main() or not stage.shared:
                self.unfinished(stage).unlink(missing_ok=True)

        return self.cache.get(stage.folder, self.inputs(stage), make, stage.code(), stage.shared)

    def inputs(self, stage: Stage[Any]) -> dict[str, Any]:
        """Return all that a stage's files depend on, but for the code and the libraries."""
        together = {"processes": distributed.size()} if stage.shared else {}
        return {"stage": type(stage).__qualname__, "of": stage.inputs(self), **self.machine, **together}

    def holds(self, stage: Stage[Any]) -> bool:
        """Return whether the cache holds a stage's files, undamaged."""
        return self.cache.holds(stage.folder, self.inputs(stage), stage.code())

    def unfinished(self, stage: Stage[Any]) -> Path:
        """Return where a stage may keep what it has finished: it outlives a kill, and goes when the stage is made.

        It is worth nothing to other code, so the stage's key is its name.
        """
        folder = self.cache.folder / ".checkpoints"
        return folder / f"{self.cache.key(stage.folder, self.inputs(stage), stage.code())}.safetensors"

    def redact(self, stage: Stage[Any], change: Callable[[Path], None]) -> None:
        """Replace the files of a stage in the cache by what `change(folder)` leaves of a copy; its key stays."""
        self.cache.redact(self.cache.place(stage.folder, self.inputs(stage), stage.code()), change)

    def whole(self, stage: Stage[Any], read: Callable[[Path], T]) -> T:
        """Return what `read(folder)` finds in a stage's files as they were made; redacted ones are made once more."""
        place = self.entry(stage)
        with self.cache.hold(place):
            if not self.cache.redacted(place):
                return read(place)
        with self.cache.scratch() as folder:
            stage.make(self, folder, lambda *_: None)
            return read(folder)

    def close(self) -> None:
        """Give up what the cache holds for this run, so that it can be pruned."""
        self.cache.close()

    def _reused(self, stages: Sequence[Stage[Any]]) -> int:
        """Return how many entries of these kinds of stage the cache has handed out."""
        return sum(self.cache.reused[folder] for folder in {stage.folder for stage in stages})

    def _say_reused(self, what: str, reused: int, stages: Sequence[Stage[Any]]) -> None:
        if not reused or (distributed.size() > 1 and not all(stage.shared for stage in stages)):
            return
        some = f"{reused} of {len(stages)} parts " if reused < len(stages) else ""
        which = "all " if reused == len(stages) > 1 else some
        console.say(f"  {what}: {which}from the cache")


def _ticks(tick: Tick, works: Sequence[int]) -> list[Tick]:
    """Return the progress of every part as progress of the whole; a single part knows its own total best."""
    starts, total = list(accumulate(works, initial=0)), sum(works)
    if len(works) == 1:
        return [tick]

    def part(start: int) -> Tick:
        return lambda done, _: tick(start + done, total)

    return [part(start) for start in starts[:-1]]
