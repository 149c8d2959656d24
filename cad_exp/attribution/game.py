"""The game: J as a function of one gate per component. It is all that an estimator knows.

Components are players, an ablation pattern is the set of those that stay, J is what they achieve together; so every
rule that shares out a game's value (gradients, leave-one-out, Shapley, regression) is an attribution.
"""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from cad_exp.attribution.objectives.build import Objective
from cad_exp.interventions.gating import Tap, watched
from cad_exp.interventions.networks import Networks, is_text, weight_of
from cad_exp.interventions.spaces import ComponentSpace
from cad_exp.models.families.condition import Condition
from cad_exp.models.pipeline import Progress
from cad_exp.utils import distributed
from cad_exp.utils.errors import UserError


class Game:
    """J(gates) for the components of one space; gates (n,): 1 intact, 0 ablated, anything between allowed.

    `n` is the number of components. Raises UserError if the space has none.
    """

    def __init__(self, objective: Objective, space: ComponentSpace):
        self.objective, self.space, self.n = objective, space, space.n
        if not self.n:
            raise UserError(space.empty())

    @cached_property
    def intact(self) -> float:
        """J of the intact model, evaluated once."""
        return self.objective.value()

    def value(self, gates: Tensor | None = None) -> float:
        """Return J at gates (n,); None is the intact model."""
        return self.intact if gates is None else self.objective.value(self.space, gates)

    def values(self, gates: Tensor) -> Tensor:
        """Return J (A,) fp64 on the CPU of A ablations at once: gates (A, n). Several processes share the ablations.

        Many go to a forward pass where the space lets rows have gates of their own, else they go one by one.
        """
        if not self.space.per_row:
            return torch.tensor([self.value(row) for row in gates], dtype=torch.float64)
        if distributed.size() == 1:
            return self.objective.values(self.space, gates)
        rows = list(distributed.share(range(len(gates))))
        totals = torch.zeros(len(gates), dtype=torch.float64, device=self.objective.model.device)
        if rows:
            totals[rows] = self.objective.values(self.space, gates[rows]).to(totals)
        distributed.add_up([totals])
        return totals.cpu()

    def value_and_gradient(self, gates: Tensor | None = None) -> tuple[float, Tensor]:
        """Return J and dJ/dgates (n,) fp32 on the CPU at gates (n,); None is the intact model."""
        ones = torch.ones(()).expand(self.n)  # takes no memory
        value, slopes = self.objective.value_and_gradient(self.space, ones if gates is None else gates)
        if gates is None:
            self.intact = value
        return value, self.space.join(slopes)

    def deal(self, number: int, seed: int = 0) -> list[Game]:
        """Deal this game's noisy latents at random: a game on each of `number` shares, or of as many as there are."""
        return [Game(objective, self.space) for objective in self.objective.deal(number, seed)]

    def reporting(self, progress: Progress | None) -> Game:
        """Return this game, whose objective tells a listener of its progress."""
        return Game(self.objective.reporting(progress), self.space)


@torch.no_grad()
def input_norms(game: Game, condition: Condition) -> dict[str, Tensor]:
    """Return ||x_j||_2 (in,) of every column's input per module, over tokens, root mean square over noisy latents.

    condition: one row, under which the intact network sees the noisy latents (`objective.concept` or `.neutral`).
    """
    objective, model = game.objective, game.objective.model
    taps, networks = game.space.taps, Networks.of(model)
    if any(is_text(tap.module) for tap in taps):
        raise UserError("activations of text encoders are not measured: choose other granularity.kinds")
    widths = {tap.module: weight_of(networks, tap.module).shape[1] for tap in taps}
    sums = {name: torch.zeros(width, device=model.device) for name, width in widths.items()}

    def add(tap: Tap, x: Tensor) -> None:
        sums[tap.module] += x.float().square().flatten(0, -2).sum(0)

    with watched(networks, taps, add):
        for batch in distributed.share(list(objective.latents.batches(objective.batch_size))):
            model.predict(batch.x, batch.t, condition)
    distributed.add_up(list(sums.values()))
    return {name: (total / len(objective.latents)).sqrt().cpu() for name, total in sums.items()}
