"""A function of gates to second order: what single components do, and what every pair does together.

q(d) = constant + l . d + |F d|^2, where d = gates - 1: 0 intact, -1 ablated. The pair i, j does 2 F_i . F_j d_i d_j
beyond the sum of what each does alone. F has few rows, so no matrix of all pairs is ever made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Quadratic:
    """constant: at d = 0. linear: l (n,) fp64. factor: F (rows, n) fp32, a positive curvature."""

    constant: float
    linear: Tensor
    factor: Tensor

    @property
    def n(self) -> int:
        """The number of components."""
        return len(self.linear)

    def value(self, d: Tensor) -> Tensor:
        """Return q (...) fp64 at changes d (..., n) of the gates."""
        d = d.double()
        return self.constant + d @ self.linear + self._moved(d).square().sum(-1)

    def gradient(self, d: Tensor) -> Tensor:
        """Return dq/dd (n,) fp64 at d (n,)."""
        return self.linear + 2 * (self._moved(d.double()).float() @ self.factor).double()

    def _moved(self, d: Tensor) -> Tensor:
        return (d.float() @ self.factor.T).double()

    def interaction(self, rows: Sequence[int] | Tensor, columns: Sequence[int] | Tensor | None = None) -> Tensor:
        """Return (rows, columns) fp64: J(neither) - J(no i) - J(no j) + J(intact), of components by number.

        It is the second difference of ablations; columns: None takes the rows again. The diagonal is that of 2 F'F,
        the curvature of a component with itself.
        """
        left = self.factor[:, torch.as_tensor(rows)].double()
        right = left if columns is None else self.factor[:, torch.as_tensor(columns)].double()
        return 2 * left.T @ right

    def grouped(self, groups: Tensor, number: int) -> Quadratic:
        """Return the same function of one gate for each group; groups (n,): the group of every component."""
        linear = torch.zeros(number, dtype=torch.float64).index_add_(0, groups, self.linear)
        factor = torch.zeros(len(self.factor), number).index_add_(1, groups, self.factor)
        return Quadratic(self.constant, linear, factor)

    def __add__(self, other: Quadratic) -> Quadratic:
        rows = torch.cat([self.factor, other.factor])
        return Quadratic(self.constant + other.constant, self.linear + other.linear, rows)

    def times(self, weight: float) -> Quadratic:
        """Return the function times a weight, which must not be negative."""
        return Quadratic(self.constant * weight, self.linear * weight, self.factor * weight**0.5)


def mean(parts: Sequence[Quadratic]) -> Quadratic:
    """Return the mean of some functions of the same gates."""
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total.times(1 / len(parts))
