"""What every estimate offers."""

from __future__ import annotations

from typing import Protocol, Self

from cad_exp.evaluation.intervals.formulas import Bounds, Interval


class Estimate(Protocol):
    """One variant's numbers, and what they say of the whole."""

    @property
    def words(self) -> str:
        """How `interval` is found, for results.json."""

    @property
    def change_words(self) -> str:
        """How the interval of `change` is found, for results.json."""

    @property
    def value(self) -> float:
        """The estimate itself."""

    def interval(self) -> Bounds | None:
        """Return (low, high); None where the data say nothing of the spread."""

    def change(self, before: Self) -> Interval:
        """Return the difference to another variant on the same images, in the same order."""


def estimated(estimate: Estimate) -> Interval:
    """(value, low, high) of an estimate."""
    return (estimate.value, *(estimate.interval() or (None, None)))
