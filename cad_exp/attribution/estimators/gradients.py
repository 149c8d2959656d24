"""Estimators that read the effect of every component off the gradient with respect to its gate."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from cad_exp.attribution.estimators.base import Estimator, Scores, Watch
from cad_exp.attribution.game import Game
from cad_exp.utils.errors import UserError


class FirstOrder(Estimator):
    """CAD: alpha = w dJ/dw, the first-order estimate of J(intact) - J(component ablated) (arXiv 2412.02542).

    It is the gradient with respect to a gate on each weight, at gates = 1; one backward pass serves every granularity.
    """

    name, additive = "first_order", True

    def _estimate(self, game: Game, watch: Watch) -> Scores:
        value, gradient = watch.of(game, 1).value_and_gradient()
        return Scores(gradient, facts={"passes": 1}, intact=value)


class GradientMagnitude(FirstOrder):
    """|dJ/dgate|: how much J reacts, whatever the direction; a baseline without a sign."""

    name, additive = "gradient_magnitude", False

    def _estimate(self, game: Game, watch: Watch) -> Scores:
        scores = super()._estimate(game, watch)
        return replace(scores, values=scores.values.abs())


class IntegratedGradients(Estimator):
    """Mean gradient along the straight path from gates 1 to `level`, all components together (arXiv 1703.01365).

    Integrated by `steps` Gauss-Legendre nodes, one backward pass each. Completeness: the scores, times 1 - level, sum
    to J(1) - J(level); by how much they miss it is `convergence_delta` in the facts. All components of the game share
    the path, so an estimate of heads among attentions alone differs from one where feed-forward blocks fade as well.
    """

    name, additive = "integrated_gradients", True

    def __init__(self, steps: int = 8, level: float = 0.0):
        if steps < 1 or not 0 <= level < 1:
            raise UserError(f"steps={steps}, level={level}: use steps of 1 or more and a level in [0, 1)")
        self.steps, self.level = int(steps), float(level)

    def _estimate(self, game: Game, watch: Watch) -> Scores:
        nodes, shares = np.polynomial.legendre.leggauss(self.steps)
        mean = torch.zeros(game.n)
        game = watch.of(game, self.steps + 2)
        for node, share in zip(nodes, shares, strict=True):
            gate = self.level + (1 - self.level) * (node + 1) / 2
            mean += float(share / 2) * game.value_and_gradient(torch.full((game.n,), float(gate)))[1]
        drop = game.intact - game.value(torch.full((game.n,), self.level))
        delta = (1 - self.level) * mean.double().sum().item() - drop
        facts = {"passes": self.steps, "level": self.level, "drop": drop, "convergence_delta": delta}
        return Scores(mean, facts=facts, intact=game.intact)
