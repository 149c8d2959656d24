"""What every estimate offers."""

from __future__ import annotations

from typing import Protocol, Self

from cad_exp.evaluation.intervals.formulas import Bounds, Interval


class Estimate(Protocol):
    """One variant's numbers, and what they say of the whole."""

    @property
    def words(self) -> str: ...

    @property
    def change_words(self) -> str: ...

    @property
    def value(self) -> float: ...

    def interval(self) -> Bounds | None: ...

    def change(self, before: Self) -> Interval: ...


def estimated(estimate: Estimate) -> Interval:
    """(value, low, high) of an estimate."""
    return (estimate.value, *(estimate.interval() or (None, None)))
