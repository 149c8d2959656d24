"""SAeUron's score: components that act more under the concept's prompt than under other prompts."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from cad_exp.attribution.estimators.base import Estimator, Scores, Watch
from cad_exp.attribution.game import Game
from cad_exp.data.noisy_latents import NoisyLatents
from cad_exp.interventions.gating import Tap, watched
from cad_exp.interventions.networks import Networks
from cad_exp.interventions.spaces import Scale
from cad_exp.models.families.condition import Condition
from cad_exp.utils import distributed


class ActivationDifference(Estimator):
    """A component's share of all activation under the concept's prompt, minus its share under other prompts.

    At timestep t, mu(i, t, D) is the mean of |z_i| over the positions of the noisy latents of t, under the prompts D.
    The score is the mean over t of mu(i, t, concept) / sum_j mu(j, t, concept) - mu(i, t, D) / sum_j mu(j, t, D), where
    j runs over the components of the same place (SAeUron, arXiv 2501.18052, equation 4; there z >= 0, and latents are
    chosen anew for each t). The paper reads each prompt on its own trajectories; here all prompts see the same noisy
    latents. It knows nothing of J: one forward pass for each prompt.

    others: the prompts D. Those that contain the concept's prompt are left out; None, or none left: the base prompt.
    """

    name, scale, requires_values = "activation_difference", Scale.MANY, True

    def __init__(self, others: Iterable[str] | None = None):
        self.others = None if others is None else list(others)

    def _estimate(self, game: Game, watch: Watch) -> Scores:
        objective = game.objective
        concept = objective.latents.prompt
        kept = [prompt for prompt in self.others or () if concept.lower() not in prompt.lower()]
        others = list(objective.model.encode(kept).split(1)) if kept else [objective.neutral]
        own, total = mean_values(game, objective.concept), torch.zeros(())
        for number, condition in enumerate(others):
            total = total + mean_values(game, condition) / len(others)
            if watch.progress:
                watch.progress((number + 2) * len(objective.latents), (len(others) + 1) * len(objective.latents))
        found = self._shares(game, own) - self._shares(game, total)
        facts = {"passes": 1 + len(others), "others": kept or [objective.latents.base_prompt]}
        return Scores(found.mean(0).float().cpu(), facts=facts)

    def _shares(self, game: Game, means: Tensor) -> Tensor:
        """Return means (T, n) as shares of what their place has at each timestep; 0 where nothing acts."""
        parts = game.space.split(means).values()
        return torch.cat([part / part.sum(-1, keepdim=True).clamp(min=1e-12) for part in parts], -1)


@torch.no_grad()
def mean_values(game: Game, condition: Condition) -> Tensor:
    """Return the mean of |z| (T, n) fp64 over positions and noisy latents, for each timestep that these have.

    condition: one row, under which the intact network sees the noisy latents.
    """
    objective, model, taps = game.objective, game.objective.model, game.space.taps
    times = objective.latents.t.unique()
    sizes = {module: part.shape[-1] for module, part in game.space.split(torch.zeros(1, game.n)).items()}
    sums = {
        name: torch.zeros(len(times), size, dtype=torch.float64, device=model.device) for name, size in sizes.items()
    }
    counts = torch.zeros(len(times), 1, dtype=torch.float64, device=model.device)
    batch: NoisyLatents

    def add(tap: Tap, activation: Tensor) -> None:
        size = game.space.values(tap, activation).abs().flatten(1, -2).mean(1)
        sums[tap.module].index_add_(0, torch.searchsorted(times, batch.t).to(size.device), size.double())

    with watched(Networks.of(model), taps, add):
        for batch in distributed.share(list(objective.latents.batches(objective.batch_size))):
            model.predict(batch.x, batch.t, condition)
            counts.index_add_(0, torch.searchsorted(times, batch.t).to(counts.device), counts.new_ones(len(batch), 1))
    distributed.add_up([*sums.values(), counts])
    return torch.cat(list(sums.values()), -1) / counts
