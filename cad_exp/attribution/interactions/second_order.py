"""What ablations do to J beyond the sum of their scores: J to second order in the gates, for any objective.

With d = gates - 1: J(1 + d) = J(1) + s.d + d'Hd / 2 + ..., s the first-order scores and H the interactions of all
pairs. Of few components (heads, layers) every pair is measured. Of many (neurons, latents, weights) no pair matters by
itself, and two numbers say what sets of them do:

- h = H 1: how the effect of each component changes as others go. It is the mean slope at the intact model less that
  where a share R of random components is ablated, over R;
- trace H, less what h tells of it: what components do to themselves. It is what J loses there beyond h and the scores.

Then d'Hd = m^2 1'h + 2 m (d - m).h + v trace, with m the mean and v the variance of d. It is exact for sets that are
drawn at random, up to the spread of random pairs: backup and crowding-out are in h, and damage of any kind in trace.
Random patterns share out the noisy latents, so both together cost what two passes of first-order scores do.
Where J is a squared distance of predictions, as CAD's erase, that spread counts: the curvature of the distance itself
is far larger than that of the network. There a sketch of all pairs stands for the distance, and the two numbers say
what it misses: how the network itself bends.

Source: differences at a finite step, as CAD's ablations are no infinitesimal ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cad_exp.attribution.estimators.patterns import stratified
from cad_exp.attribution.game import Game
from cad_exp.attribution.interactions.quadratic import Quadratic
from cad_exp.attribution.interactions.sketch import Sketcher, concept

FEW = 128  # components of which every pair is measured
RATE, PATTERNS = 0.2, 32  # share of random components that are ablated; patterns of them
PROJECTIONS = 4  # of each noisy latent's prediction, for the sketch, at most
SKETCH_BYTES = 2**29  # of a sketch's rows, at most; what it takes while it is made: attribution/sizes.py


@dataclass(frozen=True)
class SecondOrder:
    """What predicts.

    scores: s (n,) fp64, signed as CAD's. fading: h (n,). trace: of H without its common part. pairs: H (n, n). sketch:
    of a squared distance, whose value is J; fading and trace are then of what it misses.
    """

    scores: Tensor
    fading: Tensor
    trace: float
    pairs: Tensor | None = None
    sketch: Quadratic | None = None

    def predict(self, gates: Tensor) -> Tensor:
        """Return J(gates) - J(intact) (A,) fp64 for gates (A, n)."""
        d = gates.double() - 1
        first = d @ self.scores if self.sketch is None else self.sketch.value(d) - self.sketch.constant
        if self.pairs is not None:
            return first + ((d @ self.pairs) * d).sum(1) / 2
        mean, spread = d.mean(1), d.var(1, correction=0)
        apart = (d - mean[:, None]) @ self.fading
        return first + (mean.square() * self.fading.sum() + 2 * mean * apart + spread * self.trace) / 2


def second_order(
    game: Game, rate: float = RATE, patterns: int = PATTERNS, seed: int = 0, few: int = FEW
) -> SecondOrder:
    """Measure the interactions of a game's components.

    Args:
        game: whose J; its noisy latents are gone through n + 1 times forward and back for `few` components, else twice;
            for a squared distance also once for each projection, and once for what lies along it. Where rows of n
            components take more than SKETCH_BYTES, there are fewer projections, then fewer noisy latents.
        rate: share of the components that random patterns ablate, in (0, 1).
        patterns: number of these; they share out the noisy latents, so there are at most as many.
        seed: of the patterns, and of projections.
        few: up to so many components every pair is measured.
    """
    if game.n <= few:
        return _of_pairs(game)
    sketch = _of_distance(game, seed) if _is_distance(game) else None
    return _of_random_sets(game, rate, patterns, seed, sketch)


def _is_distance(game: Game) -> bool:
    """Return whether J is a squared distance that can be sketched: rows have gates of their own, prompts do not."""
    objective = getattr(game, "objective", None)
    if objective is None or not objective.distance or objective.latents.base is None or not game.space.per_row:
        return False
    if objective.ablation.name != "zero":
        return False
    return not game.space.gating(objective.model, torch.ones(game.n)).text


def _of_random_sets(game: Game, rate: float, patterns: int, seed: int, sketch: Quadratic | None) -> SecondOrder:
    """Compare J and its slopes at the intact model with those where random components are ablated.

    Of both counts what a sketch of J does not say already.
    """
    games = game.deal(patterns, seed)
    scores, ablated = torch.zeros(2, game.n, dtype=torch.float64)
    change, share = 0.0, 0.0
    drawn = stratified(game.n, [rate], len(games), torch.Generator().manual_seed(seed))
    for part, gates in zip(games, drawn, strict=True):
        (intact, before), (value, after) = part.value_and_gradient(), part.value_and_gradient(gates)
        scores += before.double() / len(games)
        ablated += after.double() / len(games)
        change += (value - intact) / len(games)
        share = 1 - float(gates.mean())
        if sketch is not None:
            d = gates.double() - 1
            scores -= sketch.linear / len(games)
            ablated -= sketch.gradient(d) / len(games)
            change -= float(sketch.value(d) - sketch.constant) / len(games)
    fading = (scores - ablated) / share
    bend = 2 * (change + share * float(scores.sum())) - share**2 * float(fading.sum())
    known = scores if sketch is None else sketch.linear
    return SecondOrder(known, fading, bend / (share * (1 - share)), sketch=sketch)


def _of_distance(game: Game, seed: int) -> Quadratic:
    """Sketch the squared distance that is J."""
    objective = game.objective
    number, projections = extent(game.n, len(objective.latents))
    order = torch.randperm(len(objective.latents), generator=torch.Generator().manual_seed(seed))
    latents = objective.latents[order[:number].sort().values]
    how = (projections, seed, objective.batch_size)
    return concept(Sketcher(objective.model, game.space, *how, counted=objective.counted), latents)


def extent(n: int, latents: int) -> tuple[int, int]:
    """Return at how many of the noisy latents n components are sketched, and the projections of each."""
    most = max(1, SKETCH_BYTES // (4 * n))
    number = min(latents, most)
    return number, min(PROJECTIONS, max(1, most // number))


def _of_pairs(game: Game) -> SecondOrder:
    """Measure every pair by gradients, each with one component ablated, and each alone by its ablation.

    H_ij: how the effect of j changes once i is gone, the mean of both ways round. H_ii: what the ablation of i does
    beyond its score.
    """
    intact, slopes = game.value_and_gradient()
    scores, gates = slopes.double(), 1 - torch.eye(game.n)
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
