"""The exact effect of every component, by ablating one after the other."""

from __future__ import annotations

import torch
from torch import Tensor

from cad_exp.attribution.estimators.base import Scores, Watch
from cad_exp.attribution.estimators.blocks import AblationEstimator
from cad_exp.attribution.game import Game
from cad_exp.utils.errors import UserError


class LeaveOneOut(AblationEstimator):
    """J(intact) - J(component ablated), exactly: as many ablations as components."""

    name = "leave_one_out"

    def __init__(self, block: int = 256):
        if block < 1:
            raise UserError(f"block={block} is out of range: use 1 or more")
        self.block = int(block)

    def _estimate(self, game: Game, watch: Watch) -> Scores:
        def rows(start: int, stop: int) -> Tensor:
            gates = torch.ones(stop - start, game.n)
            gates[torch.arange(stop - start), torch.arange(start, stop)] = 0
            return gates

        game = watch.of(game, game.n + 1)
        values = self._values(game, rows, game.n, {}, watch.checkpoint)
        facts = {"passes": game.n, "exact": True}
        return Scores((game.intact - values).float(), torch.zeros(game.n), facts, game.intact)
