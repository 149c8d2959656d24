"""Shapley values: a component's effect, averaged over all orders in which components can be added."""

from __future__ import annotations

import torch
from torch import Tensor

from cad_exp.attribution.estimators.base import Scores, Watch
from cad_exp.attribution.estimators.blocks import AblationEstimator
from cad_exp.attribution.game import Game
from cad_exp.interventions.spaces import Scale
from cad_exp.utils.errors import UserError


class Shapley(AblationEstimator):
    """Permutation sampling (Castro et al. 2009) in antithetic pairs: each order comes with its reverse.

    From all ablated to intact, components are added in the order; each gets what its addition changes. So for every
    order the scores sum to J(1) - J(0) exactly (efficiency). errors: from the spread of the pairs, None for one pair.
    """

    name, scale = "shapley", Scale.FEW

    def __init__(self, permutations: int = 16, seed: int = 0):
        if permutations < 2 or permutations % 2:
            raise UserError(f"permutations={permutations} is out of range: use an even number, each has its reverse")
        self.permutations, self.seed = int(permutations), int(seed)

    def _estimate(self, game: Game, watch: Watch) -> Scores:
        generator = torch.Generator().manual_seed(self.seed)
        firsts = [torch.randperm(game.n, generator=generator) for _ in range(self.permutations // 2)]
        orders = torch.stack([order for first in firsts for order in (first, first.flip(0))])
        ranks = orders.argsort(1)  # when each component is added
        inner = game.n - 1  # coalitions of 1 to n - 1 components; the empty and the full one are the same for all

        def rows(start: int, stop: int) -> Tensor:
            number = torch.arange(start, stop)
            return (ranks[number // inner] <= (number % inner)[:, None]).float()

        number = self.permutations * inner
        game = watch.of(game, number + 2)
        ends = torch.tensor([game.value(torch.zeros(game.n)), game.intact], dtype=torch.float64)
        values = torch.zeros(0, dtype=torch.float64)
        if number:
            settings = {"permutations": self.permutations, "seed": self.seed}
            values = self._values(game, rows, number, settings, watch.checkpoint)
        chain = torch.cat([values.view(-1, inner), ends[1].expand(self.permutations, 1)], 1)
        gains = chain.diff(dim=1, prepend=ends[0].expand(self.permutations, 1)).gather(1, ranks)
        pairs = gains.view(-1, 2, game.n).mean(1)
        errors = (pairs.std(0) / len(pairs) ** 0.5).float() if len(pairs) > 1 else None
        drop = (ends[1] - ends[0]).item()
        facts = {"passes": number + 2, "permutations": self.permutations, "seed": self.seed, "drop": drop}
        facts["efficiency_gap"] = (gains.sum(1) - drop).abs().max().item()
        return Scores(pairs.mean(0).float(), errors, facts, game.intact)
