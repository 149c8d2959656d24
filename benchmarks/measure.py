"""How things are measured: ours and the peer in turn, medians; one table row per claim."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.models import load
from cad_exp import DiffusionModel


@dataclass
class Row:
    """One claim: `ratio` is what the target speaks of, at least (`>=`) or at most (`<=`); None where not measured."""

    name: str
    unit: str
    ours: float | None
    peer: float | None
    ratio: float | None
    target: str
    met: bool | None
    notes: str = ""


@dataclass
class Bench:
    """What every row needs to know. `quick` shrinks all sizes: for trying out, not for numbers."""

    model: str
    folder: Path  # for pictures
    quick: bool = False
    repeats: int = 3

    def load(self) -> DiffusionModel:
        return load(self.model)

    def size(self, full: int, quick: int) -> int:
        return quick if self.quick else full


def row(
    name: str, unit: str, ours: float | None, peer: float | None, ratio: float | None, target: str = "", notes: str = ""
) -> Row:
    """A row whose target reads `>= 10` or `<= 1.15`; `met` follows from it."""
    met = None
    if target and ratio is not None:
        sign, bound = target.split()
        met = ratio >= float(bound) if sign == ">=" else ratio <= float(bound)
    return Row(name, unit, ours, peer, ratio, target, met, notes)


def seconds(work: Callable[[], Any]) -> float:
    """Wall seconds of one call, with the device's queue emptied before and after."""
    _synchronize()
    start = time.perf_counter()
    work()
    _synchronize()
    return time.perf_counter() - start


def alternate(*works: Callable[[], Any], repeats: int = 3) -> list[float]:
    """Median wall seconds of each piece of work, called in turn, so that a busy machine slows all of them alike."""
    times = [[seconds(work) for work in works] for _ in range(repeats)]
    return [statistics.median(column) for column in zip(*times, strict=True)]


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
