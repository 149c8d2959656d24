"""Estimators: rules that turn an objective J(gates) into one signed score per weight. They know nothing but J."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from cad_exp.components import Site
from cad_exp.errors import choose
from cad_exp.objectives import Objective


class Estimator:
    """After `estimate`, `intact` holds J of the intact model where the estimator computed it anyway."""

    name: str
    intact: float | None = None

    def estimate(self, objective: Objective, sites: Sequence[Site]) -> dict[str, Tensor]:
        """Scores (out, in) fp32 per site's module: positive helps the concept, negative suppresses it."""
        raise NotImplementedError


class FirstOrder(Estimator):
    """CAD: alpha = w dJ/dw, the first-order estimate of J(intact) - J(component ablated).

    It is the gradient with respect to a gate on each weight, at gates = 1; one backward pass serves every granularity.
    """

    name = "first_order"

    def estimate(self, objective: Objective, sites: Sequence[Site]) -> dict[str, Tensor]:
        ones = {site.module: torch.ones(()).expand(site.shape) for site in sites}  # takes no memory
        self.intact, scores = objective.value_and_gradient(ones)
        return scores


class GradientMagnitude(FirstOrder):
    """|w dJ/dw|: how much J reacts, whatever the direction; a baseline without a sign."""

    name = "gradient_magnitude"

    def estimate(self, objective: Objective, sites: Sequence[Site]) -> dict[str, Tensor]:
        return {module: score.abs() for module, score in super().estimate(objective, sites).items()}


class Magnitude(Estimator):
    """|w|: the size of the weight alone, the same for every concept; the oldest baseline of pruning."""

    name = "magnitude"

    def estimate(self, objective: Objective, sites: Sequence[Site]) -> dict[str, Tensor]:
        return {site.module: objective.weight(site.module).abs() for site in sites}


class Random(Estimator):
    """Standard normal scores: what a ranking without any knowledge gives. The seed makes them repeatable."""

    name = "random"

    def __init__(self, seed: int = 0):
        self.seed = int(seed)

    def estimate(self, objective: Objective, sites: Sequence[Site]) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(self.seed)
        return {site.module: torch.randn(site.shape, generator=generator) for site in sites}


ESTIMATORS = {cls.name: cls for cls in (FirstOrder, GradientMagnitude, Magnitude, Random)}


def make_estimator(name: str, **settings: Any) -> Estimator:
    """An estimator by name (`first_order`, `magnitude`, ...) with its own settings. UserError for an unknown name."""
    return ESTIMATORS[choose(name, ESTIMATORS, "estimator")](**settings)
