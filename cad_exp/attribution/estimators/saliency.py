"""The saliency of SalUn: how steep J is in a weight, whatever the weight's size."""

from __future__ import annotations

import torch

from cad_exp.attribution.estimators.base import Estimator, Scores
from cad_exp.attribution.game import Game
from cad_exp.interventions.spaces import Weight


class Saliency(Estimator):
    """|dJ/dw|: SalUn's weight saliency (arXiv 2310.12508), with J in place of its forgetting loss.

    SalUn fine-tunes the salient weights; here they only get a score. A component's is the sum over its weights. The
    gradient of the gates is w dJ/dw; a weight of 0, which an ablation cannot change, scores 0. One backward pass.
    """

    name, additive = "saliency", True

    def _estimate(self, game: Game) -> Scores:
        single = Game(game.objective, Weight(game.cut.kinds), game.sites)
        with self._reporting(game, 1):
            _, gradient = single.value_and_gradient()
        size = single.weights()
        slopes = torch.where(size > 0, gradient.abs() / size, 0.0)
        return Scores(game.join(single.split(slopes)), facts={"passes": 1})
