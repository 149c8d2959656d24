"""An estimator: a rule that gives every component a score, from J(gates) alone."""

import torch

from cad_exp.attribution.estimators.base import Estimator, Scores, Watch
from cad_exp.attribution.game import Game


class HalfWay(Estimator):
    """The gradient of J where all gates stand at `level`, between ablated (0) and intact (1)."""

    name, additive = "half_way", True

    def __init__(self, level: float = 0.5):
        self.level = level

    def _estimate(self, game: Game, watch: Watch) -> Scores:
        _, gradient = watch.of(game, 1).value_and_gradient(torch.full((game.n,), self.level))
        return Scores(gradient, facts={"passes": 1, "level": self.level})
