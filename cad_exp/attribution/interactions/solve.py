"""Choose all gates at once: the least of a concept for the least change of everything else.

minimise  what is left of the concept(d) + lambda * change of what is to stay(d) + sparsity * |d|_1
over      d in [lowest, 0]^n, d = gates - 1: -1 switches a component off, -2 reverses it.

Both terms are quadratic forms of positive curvature, so the problem is convex and has one value at its best. It is
solved by projected gradients with momentum and restarts (FISTA, Beck and Teboulle, SIAM J. Imaging Sciences 2, 2009;
restarts: O'Donoghue and Candes, Foundations of Computational Mathematics 15, 2015). Under d <= 0 the sparsity penalty
is linear, so one step serves penalty and box.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cad_exp.attribution.interactions.quadratic import Quadratic, total
from cad_exp.utils.errors import UserError

STEPS, TOLERANCE = 2000, 1e-7


@dataclass(frozen=True)
class Solution:
    """d (n,) fp32; value: of the whole objective; steps that it took; whether it came to rest."""

    d: Tensor
    value: float
    steps: int
    converged: bool


def solve(
    concept: Quadratic,
    retained: Quadratic,
    keep: float,
    lowest: float = -1.0,
    sparsity: float = 0.0,
    start: Tensor | None = None,
    steps: int = STEPS,
) -> Solution:
    """Return the best change of all gates.

    Args:
        concept: what is left of it, as a function of the gates.
        retained: how far everything else moves, of the same gates.
        keep: lambda, 0 or more, the weight of `retained`.
        lowest: the least d, -1 (switch off) or below, as -2 (reverse).
        sparsity: the weight of |d|_1, 0 or more.
        start: d (n,) to begin with; None: 0. A solution of a near lambda saves most steps.
        steps: at most so many.
    """
    if keep < 0 or sparsity < 0 or lowest >= 0:
        given = f"keep={keep}, sparsity={sparsity}, lowest={lowest}"
        raise UserError(f"{given}: keep and sparsity are 0 or more, lowest is below 0")
    whole = total([concept, retained.times(keep)])
    rate = 1 / max(_steepest(whole), 1e-30)
    d = torch.zeros(whole.n, dtype=torch.float64) if start is None else start.double().clamp(lowest, 0)
    ahead, momentum, scale = d, 1.0, max(float(whole.gradient(torch.zeros(whole.n)).abs().max()), 1e-30)
    for step in range(1, steps + 1):
        slope = whole.gradient(ahead) - sparsity
        moved = (ahead - rate * slope).clamp(lowest, 0)
        rest = float((moved - ahead).abs().max()) / rate / scale
        if float((ahead - moved) @ (moved - d)) > 0:  # the momentum leads uphill
            momentum, ahead = 1.0, moved
        else:
            following = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
            ahead, momentum = moved + (momentum - 1) / following * (moved - d), following
        d = moved
        if rest < TOLERANCE**0.5:
            return Solution(d.float(), _value(whole, d, sparsity), step, True)
    return Solution(d.float(), _value(whole, d, sparsity), steps, False)


def _value(whole: Quadratic, d: Tensor, sparsity: float) -> float:
    return float(whole.value(d)) - sparsity * float(d.sum())


def _steepest(whole: Quadratic, rounds: int = 30) -> float:
    """Return the largest curvature, 2 |F|^2 (spectral norm), a little above it, by power iteration."""
    v = torch.ones(whole.n) + 1e-3 * torch.arange(whole.n) / whole.n
    norm = torch.zeros(())
    for _ in range(rounds):
        v = v / v.norm().clamp_min(1e-30)
        v = whole.factor.T @ (whole.factor @ v) + whole.diagonal * v
        norm = v.norm()
    return 2.2 * float(norm)
