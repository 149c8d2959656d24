"""The exact effect of every component, by ablating one after the other."""

from __future__ import annotations

import torch
from torch import Tensor

from cad_exp.attribution.estimators.ablations import AblationEstimator
from cad_exp.attribution.estimators.base import Scores
from cad_exp.attribution.game import Game
from cad_exp.utils.errors import UserError


class LeaveOneOut(AblationEstimator):
    """J(intact) - J(component ablated), exactly: as many ablations as components."""

    name = "leave_one_out"

    def __init__(self, block: int = 256):
        if block < 1:
            raise UserError(f"block={block} is out of range: use 1 or more")
        self.block = int(block)

    def _estimate(self, game: Game) -> Scores:
        def rows(start: int, stop: int) -> Tensor:
            gates = torch.ones(stop - start, game.n)
            gates[torch.arange(stop - start), torch.arange(start, stop)] = 0
            return gates

        with self._reporting(game, game.n + 1):
            values = self._values(game, rows, game.n, {})
        return Scores((game.intact - values).float(), torch.zeros(game.n), {"passes": game.n, "exact": True})
