"""The group `estimator`: how every component gets its score."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from cad_exp.config.schema.base import Group, Own, OwnName, by_name
from cad_exp.config.schema.types import (
    Bool,
    Choice,
    Count,
    Number,
    Positive,
    Seed,
    Several,
    Steps,
    Str,
    Text,
    Whole,
)

UNSET = ("first_order", "gradient_magnitude", "magnitude", "saliency")  # estimators without settings
ESTIMATORS: tuple[str, ...] = (
    *UNSET,
    "ablated_gradients",
    "integrated_gradients",
    "leave_one_out",
    "activation_patching",
    "coar",
)
ESTIMATORS += ("shapley", "wanda", "activation_difference", "random")


class Estimator(Group):
    """How a component's score is computed."""

    title = ", ".join(UNSET)
    name: Str = Field(description="The rule by which scores are computed.")


class Ablated(Estimator):
    """Mean gradient while random components are ablated."""

    title = "ablated_gradients, auto"
    patterns: Count = Field(default=32, description="Number of random ablations.")
    passes: Count = Field(default=1, description="Passes over the noisy latents, at most one for each pattern.")
    rates: Annotated[tuple[float, ...], Several(Number(above=0, below=1), least=1)] = Field(
        default=(0.05, 0.1), description="Shares of the components that are ablated, in turn."
    )
    midpoint: Bool = Field(
        default=True, description="Whether ablations with and without a component weigh alike in its mean."
    )
    seed: Seed = Field(default=0, description="Seed of the ablations.")


class IntegratedGradients(Estimator):
    """Mean gradient on the way from the intact model to an ablated one."""

    title = "integrated_gradients"
    steps: Steps = Field(default=8, description="Points on the way: one backward pass each.")
    level: Annotated[float, Number(least=0, below=1)] = Field(
        default=0.0, description="The gates at the end of the way: 0 is fully ablated."
    )


class OneByOne(Estimator):
    """The exact effect of each component."""

    title = "leave_one_out"
    block: Count = Field(default=256, description="Ablations that are computed together.")


class Patching(Estimator):
    """Activations swapped with those under the base prompt."""

    title = "activation_patching"
    direction: Annotated[str, Choice("noising", "denoising")] = Field(
        default="noising", description="Which run gets the other's activation: the concept's, or the base prompt's."
    )
    first_order: Bool = Field(default=False, description="Whether one gradient stands for all swaps.")
    block: Count = Field(default=256, description="Swaps that are computed together.")


class Coar(Estimator):
    """Regression on random ablations."""

    title = "coar"
    patterns: Annotated[int, Whole(10)] = Field(
        default=512, description="Number of ablations; a fifth of them is left out of the fit and tests it."
    )
    rate: Annotated[float, Number(above=0, below=1)] = Field(
        default=0.1, description="Share of the components that each ablates."
    )
    ridge: Positive | None = Field(
        default=None, description="Penalty on large scores in the regression; null takes the best by cross-validation."
    )
    seed: Seed = Field(default=0, description="Seed of the ablations.")


class Shapley(Estimator):
    """Mean effect over orders in which components are added."""

    title = "shapley"
    permutations: Annotated[int, Whole(2, step=2)] = Field(
        default=16, description="Number of orders; half of them are the reverse of the others."
    )
    seed: Seed = Field(default=0, description="Seed of the orders.")


class Wanda(Estimator):
    """Weight times input norm, concept minus base prompt."""

    title = "wanda"
    rank: Annotated[str, Choice("difference", "target")] = Field(
        default="difference", description="What ranks: the difference, or the concept's own where it is larger."
    )


class ActivationDifference(Estimator):
    """Share of the activation, concept minus other prompts."""

    title = "activation_difference"
    others: Annotated[tuple[str, ...], Several(Text(), least=1)] | None = Field(
        default=None, description="Prompts to compare with, but for those that name the concept; null: the base prompt."
    )


class Random(Estimator):
    """Random scores."""

    title = "random"
    seed: Seed = Field(default=0, description="Seed of the scores.")


class OwnEstimator(Estimator, Own):
    """A user's own estimator, which takes its own settings."""

    title = "an estimator of your own"
    name: Annotated[str, OwnName(*ESTIMATORS)] = Field(description="The name of its class.")


AnyEstimator = Annotated[
    Estimator,
    by_name(
        {
            Estimator: UNSET,
            Ablated: ("ablated_gradients", "auto"),
            IntegratedGradients: ("integrated_gradients",),
            OneByOne: ("leave_one_out",),
            Patching: ("activation_patching",),
            Coar: ("coar",),
            Shapley: ("shapley",),
            Wanda: ("wanda",),
            ActivationDifference: ("activation_difference",),
            Random: ("random",),
        },
        own=OwnEstimator,
    ),
]
