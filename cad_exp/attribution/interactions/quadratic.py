"""A squared distance as a function of gates: what single components do, and what every pair does together.

q(d) = |b + F d|^2, where d = gates - 1: 0 intact, -1 ablated. The pair i, j does 2 F_i . F_j d_i d_j beyond the sum of
what each does alone. F has far fewer rows than there are pairs, so no matrix of all pairs is ever made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Quadratic:
    """offset: b (rows,) fp32. factor: F (rows, n) fp32."""

    offset: Tensor
    factor: Tensor

    @property
    def n(self) -> int:
        """The number of components."""
        return self.factor.shape[1]

    @property
    def constant(self) -> float:
        """Q of the intact model."""
        return float(self.offset.double().square().sum())

    @property
    def linear(self) -> Tensor:
        """dq/dd (n,) fp64 at the intact model, which is the first-order score of every component."""
        return 2 * (self.offset.double() @ self.factor.double())

    def value(self, d: Tensor) -> Tensor:
        """Return q (...) fp64 at changes d (..., n) of the gates."""
        return (d.float() @ self.factor.T + self.offset).double().square().sum(-1)

    def gradient(self, d: Tensor) -> Tensor:
        """Return dq/dd (n,) fp64 at d (n,)."""
        return 2 * ((self.factor @ d.float() + self.offset) @ self.factor).double()

    def interaction(self, rows: Sequence[int] | Tensor, columns: Sequence[int] | Tensor | None = None) -> Tensor:
        """Return (rows, columns) fp64: q(neither) - q(no i) - q(no j) + q(intact), of components by number.

        It is the second difference of ablations; columns: None takes the rows again. The diagonal is twice the squared
        length of F's column, the curvature of a component with itself.
        """
        left = self.factor[:, torch.as_tensor(rows)].double()
        right = left if columns is None else self.factor[:, torch.as_tensor(columns)].double()
        return 2 * left.T @ right

    def grouped(self, groups: Tensor, number: int) -> Quadratic:
        """Return the same function of one gate for each group; groups (n,): the group of every component."""
        return Quadratic(self.offset, torch.zeros(len(self.factor), number).index_add_(1, groups, self.factor))

    def times(self, weight: float) -> Quadratic:
        """Return the function times a weight, which must not be negative."""
        return Quadratic(self.offset * weight**0.5, self.factor * weight**0.5)


def total(parts: Sequence[Quadratic]) -> Quadratic:
    """Return the sum of some functions of the same gates."""
    return Quadratic(torch.cat([part.offset for part in parts]), torch.cat([part.factor for part in parts]))
