"""A squared distance as a function of gates: what single components do, and what every pair does together.

q(d) = |b + F d|^2 + sum_i w_i d_i^2, where d = gates - 1: 0 intact, -1 ablated. The pair i, j does 2 F_i . F_j d_i d_j
beyond the sum of what each does alone. F has far fewer rows than there are pairs, so no matrix of all pairs is ever
made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

COLUMNS = 256  # of a sketch's rows, in fp64 at once


@dataclass(frozen=True)
class Quadratic:
    """offset: b (rows,) fp32. factor: F (rows, n) fp32. diagonal: w (n,) fp32, 0 or more."""

    offset: Tensor
    factor: Tensor
    diagonal: Tensor

    @classmethod
    def of(cls, factor: Tensor, offset: Tensor | None = None) -> Quadratic:
        """Return the function without a diagonal; an offset of None is 0."""
        return cls(torch.zeros(len(factor)) if offset is None else offset, factor, torch.zeros(factor.shape[1]))

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
        moved = (d.float() @ self.factor.T + self.offset).double()
        return moved.square().sum(-1) + d.double().square() @ self.diagonal.double()

    def gradient(self, d: Tensor) -> Tensor:
        """Return dq/dd (n,) fp64 at d (n,)."""
        moved = self.factor @ d.float() + self.offset
        return 2 * (moved @ self.factor + self.diagonal * d.float()).double()

    def interaction(self, rows: Sequence[int] | Tensor, columns: Sequence[int] | Tensor | None = None) -> Tensor:
        """Return (rows, columns) fp64: q(neither) - q(no i) - q(no j) + q(intact), of components by number.

        It is the second difference of ablations; columns: None takes the rows again. Where i is j it is the curvature
        of a component with itself.
        """
        first = torch.as_tensor(rows)
        second = first if columns is None else torch.as_tensor(columns)
        same = (first[:, None] == second) * self.diagonal[first].double()[:, None]
        return 2 * (self.factor[:, first].double().T @ self.factor[:, second].double() + same)

    def grouped(self, groups: Tensor, number: int) -> Quadratic:
        """Return the same function of one gate for each group; groups (n,): the group of every component."""
        factor = torch.zeros(len(self.factor), number).index_add_(1, groups, self.factor)
        return Quadratic(self.offset, factor, torch.zeros(number).index_add_(0, groups, self.diagonal))

    def times(self, weight: float) -> Quadratic:
        """Return the function times a weight, which must not be negative."""
        return Quadratic(self.offset * weight**0.5, self.factor * weight**0.5, self.diagonal * weight)


def total(parts: Sequence[Quadratic]) -> Quadratic:
    """Return the sum of some functions of the same gates."""
    offset, factor = (torch.cat([getattr(part, name) for part in parts]) for name in ("offset", "factor"))
    return Quadratic(offset, factor, torch.stack([part.diagonal for part in parts]).sum(0))


def shrunk(rows: Tensor) -> tuple[Quadratic, float]:
    """Return the function |F d|^2 of a sketch whose rows (R, n) are few, shrunk towards its diagonal, and how far.

    Few rows leave directions in which nothing seems to move, and a search for the best gates runs there. The diagonal
    of F'F is known well, so a share alpha of it takes the place of F'F: the share that makes the expected error of the
    matrix least (Ledoit and Wolf, Journal of Multivariate Analysis 88, 2004; here only what is off the diagonal has an
    error worth shrinking: Schaefer and Strimmer, 2005, target D).
    """
    number, fourth = len(rows), 0.0
    gram = torch.zeros(number, number, dtype=torch.float64)
    diagonal = torch.zeros(rows.shape[1], dtype=torch.float64)
    for columns, sums in zip(rows.split(COLUMNS, 1), diagonal.split(COLUMNS), strict=True):
        block = columns.double()  # of all rows at once it would take twice what they do
        gram.addmm_(block, block.T)
        squared = block.square()
        sums += squared.sum(0)
        fourth += float(squared.square().sum())
    off = float(gram.flatten() @ gram.flatten() - diagonal @ diagonal)
    squares = number**2 * (float(gram.diagonal().square().sum()) - fourth)
    alpha = min(1.0, max(0.0, (squares / number - off) / max((number - 1) * off, 1e-300)))
    kept = Quadratic.of(rows * (1 - alpha) ** 0.5)
    return Quadratic(kept.offset, kept.factor, (alpha * diagonal).float()), alpha
