"""What ablations do to J beyond the sum of their scores: J to second order in the gates, for any objective.

With d = gates - 1: J(1 + d) = J(1) + s.d + d'Hd / 2 + ..., s the first-order scores and H the interactions of all
pairs. Of few components (heads, layers) every pair is measured. Of many (neurons, latents, weights) no pair matters by
itself, and two numbers say what sets of them do:

- h = H 1: how the effect of each component changes as all others fade together (one more gradient);
- trace H, less what h tells of it: what components do to themselves (J at random signs, forward passes alone).

Then d'Hd = m^2 1'h + 2 m (d - m).h + v trace, with m the mean and v the variance of d. It is exact for sets that are
drawn at random, up to the spread of random pairs: backup and crowding-out are in h, and damage of any kind in trace.
Where J is a squared distance of predictions, as CAD's erase, that spread counts: the curvature of the distance itself
is far larger than that of the network. There the sketch of all pairs takes the place of the two numbers.

Sources: Hutchinson's trace estimate (Communications in Statistics 19, 1990); differences at a finite step, as CAD's
ablations are no infinitesimal ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cad_exp.attribution.game import Game
from cad_exp.attribution.interactions.quadratic import Quadratic
from cad_exp.attribution.interactions.sketch import Sketcher, concept

FEW = 128  # components of which every pair is measured
STEP, SIGNS, PROJECTIONS = 0.2, 24, 4


@dataclass(frozen=True)
class SecondOrder:
    """What predicts.

    scores: s (n,) fp64, signed as CAD's. fading: h (n,). trace: of H without its common part. pairs: H (n, n). sketch:
    of a squared distance, whose value is J; it stands for all else.
    """

    scores: Tensor
    fading: Tensor
    trace: float
    pairs: Tensor | None = None
    sketch: Quadratic | None = None

    def predict(self, gates: Tensor) -> Tensor:
        """Return J(gates) - J(intact) (A,) fp64 for gates (A, n)."""
        d = gates.double() - 1
        if self.sketch is not None:
            return self.sketch.value(d) - self.sketch.constant
        first = d @ self.scores
        if self.pairs is not None:
            return first + ((d @ self.pairs) * d).sum(1) / 2
        mean, spread = d.mean(1), d.var(1, correction=0)
        apart = (d - mean[:, None]) @ self.fading
        return first + (mean.square() * self.fading.sum() + 2 * mean * apart + spread * self.trace) / 2


def second_order(game: Game, step: float = STEP, signs: int = SIGNS, seed: int = 0, few: int = FEW) -> SecondOrder:
    """Measure the interactions of a game's components.

    Args:
        game: whose J; its noisy latents are gone through n + 1 times forward and back for `few` components, else twice,
            and 2 * `signs` times forward.
        step: how far all gates are lowered for h, and how far signs move them.
        signs: random sign vectors for the trace.
        seed: of these.
        few: up to so many components every pair is measured.
    """
    intact, scores = game.value_and_gradient()
    if game.n <= few:
        return _of_pairs(game, intact, scores.double())
    if getattr(getattr(game, "objective", None), "distance", False) and game.space.per_row:
        return _of_distance(game, scores.double(), seed)
    _, lowered = game.value_and_gradient(torch.full((game.n,), 1 - step))
    fading = (scores - lowered).double() / step
    drawn = torch.randint(0, 2, (signs, game.n), generator=torch.Generator().manual_seed(seed)) * 2.0 - 1
    values = game.values(torch.cat([1 + step * drawn, 1 - step * drawn])).double()
    bends = (values[:signs] + values[signs:] - 2 * intact) / step**2
    return SecondOrder(scores.double(), fading, float(bends.mean() - fading.sum() / game.n))


def _of_distance(game: Game, scores: Tensor, seed: int) -> SecondOrder:
    """Sketch the squared distance that is J."""
    objective = game.objective
    sketcher = Sketcher(objective.model, game.space, PROJECTIONS, seed, objective.batch_size)
    found = concept(sketcher, objective.latents)
    return SecondOrder(scores, torch.zeros(game.n, dtype=torch.float64), 0.0, sketch=found)


def _of_pairs(game: Game, intact: float, scores: Tensor) -> SecondOrder:
    """Measure every pair by gradients, each with one component ablated, and each alone by its ablation.

    H_ij: how the effect of j changes once i is gone, the mean of both ways round. H_ii: what the ablation of i does
    beyond its score.
    """
    gates = 1 - torch.eye(game.n)
    alone = game.values(gates).double() - intact
    pairs = torch.stack([scores - game.value_and_gradient(row)[1].double() for row in gates])
    pairs = (pairs + pairs.T) / 2
    pairs.diagonal().copy_(2 * (alone + scores))
    return SecondOrder(scores, pairs.sum(1), float(pairs.trace()), pairs)


def second_difference(game: Game, i: int, j: int) -> float:
    """Return J(neither) - J(no i) - J(no j) + J(intact), by four evaluations of J."""
    gates = torch.ones(3, game.n)
    gates[0, i] = gates[2, i] = 0
    gates[1, j] = gates[2, j] = 0
    no_i, no_j, neither = game.values(gates).tolist()
    return float(neither - no_i - no_j + game.intact)
