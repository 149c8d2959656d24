"""The saliency of SalUn: how steep J is in a weight, whatever the weight's size."""

from __future__ import annotations

import torch

from cad_exp.attribution.estimators.base import Estimator, Scores, Watch
from cad_exp.attribution.game import Game


class Saliency(Estimator):
    """|dJ/dw|: SalUn's weight saliency (arXiv 2310.12508), with J in place of its forgetting loss.

    SalUn fine-tunes the salient weights; here they only get a score. A component's is the sum over its weights. The
    gradient of the gates is w dJ/dw; a weight of 0, which an ablation cannot change, scores 0. One backward pass.
    """

    name, additive, requires_weights = "saliency", True, True

    def _estimate(self, game: Game, watch: Watch) -> Scores:
        singles = game.space.singles()
        _, gradient = watch.of(Game(game.objective, singles), 1).value_and_gradient()
        size = singles.magnitudes(game.objective.model)
        slopes = torch.where(size > 0, gradient.abs() / size, 0.0)
        return Scores(game.space.join(singles.split(slopes)), facts={"passes": 1})
