"""What the fidelity studies ask of a game, whether its value is J or what a judge sees in images."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class Predictor(Protocol):
    """What predicts the change of J otherwise than by the sum of scores."""

    def predict(self, gates: Tensor) -> Tensor:
        """Return the predicted changes (A,) at gates (A, n)."""


class Playable(Protocol):
    """A function of one gate per component, 1 intact and 0 ablated.

    It may also have `at_once`, the most ablations to ask for in one call, and `objective` and `space`.
    """

    @property
    def n(self) -> int:
        """The number of components."""

    @property
    def intact(self) -> float:
        """The value of the intact model."""

    def values(self, gates: Tensor) -> Tensor:
        """Return the values (A,) of ablations (A, n)."""
