"""Baselines: scores that know the weights, or the activations, or nothing at all, but not J."""

from __future__ import annotations

import torch

from cad_exp.attribution.estimators.base import Estimator, Scores, Watch
from cad_exp.attribution.game import Game, input_norms
from cad_exp.utils.errors import choose


class Magnitude(Estimator):
    """|w|: the size of the weight alone, the same for every concept; the oldest baseline of pruning."""

    name, additive, requires_weights = "magnitude", True, True

    def _estimate(self, game: Game, watch: Watch) -> Scores:
        return Scores(game.space.magnitudes(game.objective.model), facts={"passes": 0})


class Wanda(Estimator):
    """ConceptPrune (arXiv 2405.19237): weights that matter more under the concept's prompt than under the base prompt.

    Wanda (arXiv 2306.11695) gives weight w_ij the importance |w_ij| ||x_j||_2, x_j the j-th input of its Linear over
    all tokens and noisy latents; a component's score is the sum over its weights. rank: `difference` scores the
    concept's importance minus the base's; `target` the concept's own where it is the larger one, and 0 elsewhere, as
    the paper ranks. The paper compares step by step, on trajectories of either prompt, inputs scaled to length 1 for
    each token, and prunes what was chosen at enough steps; here both prompts see the same noisy latents of all steps.
    Two forward passes.
    """

    name, additive, requires_weights = "wanda", True, True

    def __init__(self, rank: str = "difference"):
        self.rank = choose(rank, ("difference", "target"), "estimator.rank")

    def _estimate(self, game: Game, watch: Watch) -> Scores:
        objective = game.objective
        concept, base = (input_norms(game, condition) for condition in (objective.concept, objective.neutral))
        if self.rank == "difference":
            norms = {name: concept[name] - base[name] for name in concept}
        else:
            norms = {name: concept[name] * (concept[name] > base[name]) for name in concept}
        return Scores(game.space.magnitudes(objective.model, norms), facts={"passes": 2, "rank": self.rank})


class Random(Estimator):
    """Standard normal scores: what a ranking without any knowledge gives. The seed makes them repeatable."""

    name, additive = "random", True

    def __init__(self, seed: int = 0):
        self.seed = int(seed)

    def _estimate(self, game: Game, watch: Watch) -> Scores:
        generator = torch.Generator().manual_seed(self.seed)
        return Scores(torch.randn(game.n, generator=generator), facts={"passes": 0, "seed": self.seed})
