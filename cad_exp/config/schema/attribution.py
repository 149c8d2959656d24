"""The groups `granularity`, `noisy_latents`, `objective` and `estimator`: how every component gets its score."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from cad_exp.config.schema.base import ByName, Group, Own, OwnName, Registered, by_name, plug_ins
from cad_exp.config.schema.types import (
    Anything,
    Batch,
    Bool,
    Choice,
    Count,
    Guidance,
    Name,
    Number,
    Positive,
    Seed,
    Several,
    Special,
    Steps,
    Str,
    Text,
    Whole,
)
from cad_exp.utils import registry

GRANULARITIES = ("head", "layer", "neuron", "weight")
DIRECTED = ("latent", "principal")
SCOPES = ("row", "layer", "global")
KINDS: tuple[str, ...] = ("self-attention", "cross-attention", "joint-attention", "feed-forward", "feed-forward-in")
KINDS += ("text-attention", "text-feed-forward")
ABLATIONS = ("zero", "mean", "resample")
PLAIN = ("erase", "amplify", "projection", "guidance_norm", "auto")
JUDGED = ("clip", "judge")
OBJECTIVES = (*(name for name in PLAIN if name != "auto"), *JUDGED, "contrast")
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


class Granularity(Group):
    """The kind of component that gets a score."""

    title = ", ".join(GRANULARITIES)
    name: Annotated[str, Choice(*GRANULARITIES)] = Field(
        description="What one component is; part of the run folder's name."
    )
    kinds: Annotated[tuple[str, ...], Several(Choice(*KINDS), least=1)] | None = Field(
        description="Kinds of module whose components are scored; null takes those that are usual."
    )
    scope: Annotated[str, Choice(*SCOPES)] = Field(
        description="Where components compete for an edit: in a row, in a layer, or all together."
    )


class OfAutoencoders(Granularity):
    """Directions of activations: latents of sparse autoencoders, or principal components."""

    title = ", ".join(DIRECTED)
    name: Annotated[str, Choice(*DIRECTED)] = Field(description="What one component is; part of the run folder's name.")
    kinds: None = Field(default=None, description="null: they belong to no kind of module.")
    autoencoders: Str = Field(description="The folder `autoencoders` of a run of task=sae.")
    hookpoints: Annotated[tuple[str, ...], Several(Text(), least=1)] | None = Field(
        description="Places among those of the folder; null takes all."
    )


class OwnGranularity(Granularity, Own):
    """A user's own granularity, which takes its own settings."""

    title = "a granularity of your own"
    name: Annotated[str, Name()] = Field(description="The name of its class; part of the run folder's name.")
    kinds: Annotated[tuple[str, ...], Several(Text(), least=1)] | None = Field(
        default=None, description="Kinds of module whose components are scored; null takes those that are usual."
    )


def _of_whom(given: dict[str, Any]) -> type[Granularity]:
    """Return the class of the group: a user's own where a plug-in has the name, or a dotted path stands for it."""
    theirs = registry.TARGET in given or given.get("name") in plug_ins("granularity")
    if theirs:
        return OwnGranularity
    return OfAutoencoders if given.get("name") in DIRECTED else Granularity


AnyGranularity = Annotated[
    Granularity | OfAutoencoders | OwnGranularity, ByName(_of_whom, Granularity, OfAutoencoders, OwnGranularity)
]


class NoisyLatents(Group):
    """The noisy images at which the model is asked."""

    samples: Count = Field(description="Number of trajectories.")
    steps: Steps = Field(description="Steps of each trajectory.")
    independent: Bool = Field(description="Whether one step of each trajectory is used, another one in each.")
    guidance: Guidance = Field(description="Guidance of the trajectories; 0 walks along the base prompt's own.")
    batch_size: Batch = Field(description="Trajectories that are walked together.")
    seed: Seed = Field(description="Seed of the trajectories.")
    images: Str | None = Field(description="A folder of real images to noise; null takes images that the model makes.")


class Objective(Group):
    """What counts as showing the concept."""

    title = ", ".join(PLAIN)
    name: Annotated[str, Choice(*PLAIN)] = Field(description="The formula; auto takes the one of the concept.")
    ablation: Annotated[str, Choice(*ABLATIONS)] = Field(
        default="zero", description="What stands for an ablated component: nothing, its mean, or the base prompt's."
    )


class JudgedObjective(Objective):
    """What a judge finds in the predicted image."""

    title = "clip, judge"
    name: Annotated[str, Choice(*JUDGED)] = Field(description="Which judge is asked.")
    guidance: Guidance = Field(default=1.0, description="Guidance of the predicted image; 1 is the concept's alone.")


class Contrast(Objective):
    """An objective for the concept minus its mean for prompts to retain."""

    title = "contrast"
    name: Annotated[str, Choice("contrast")] = Field(description="The formula.")
    of: Annotated[str, Registered("objective", *OBJECTIVES[:-1])] = Field(
        default="projection", description="The objective of both."
    )
    weight: Annotated[tuple[float, ...], Special(lambda value: weights(value), "a number or a list of numbers")] = (
        Field(default=(1.0,), description="Weight of what is retained; or one number for each prompt.")
    )
    retain: Annotated[tuple[str, ...], Several(Text(), least=1)] = Field(description="Prompts to retain.")
    base_prompt: Anything = Field(default="", description="The prompt that retained ones are compared with.")
    guidance: Guidance = Field(default=1.0, description="Guidance of the predicted image, where a judge is asked.")


def weights(value: object) -> Any:
    """Check a weight, or a list of them: at least 0."""
    one = Number(least=0, most=1e6)
    return Several(one, least=1).check(value) if isinstance(value, (list, tuple)) else one.check(value)


class OwnObjective(Objective, Own):
    """A user's own objective, which takes its own settings."""

    title = "an objective of your own"
    name: Annotated[str, OwnName(*OBJECTIVES)] = Field(description="The name of its class.")
    ablation: Annotated[str, Choice(*ABLATIONS)] = Field(
        default="zero", description="What stands for an ablated component: nothing, its mean, or the base prompt's."
    )


class Estimator(Group):
    """How a component's score is computed."""

    title = ", ".join(UNSET)
    name: Str = Field(description="The rule.")


class Ablated(Estimator):
    """Mean gradient while random components are ablated."""

    title = "ablated_gradients, auto"
    patterns: Count = Field(default=32, description="Random ablations.")
    passes: Count = Field(default=1, description="Passes over the noisy latents, at most one for each pattern.")
    rates: Annotated[tuple[float, ...], Several(Number(above=0, below=1), least=1)] = Field(
        default=(0.05, 0.1), description="Shares of the components that are ablated, in turn."
    )
    midpoint: Bool = Field(default=True, description="Whether patterns with and without a component weigh alike.")
    seed: Seed = Field(default=0, description="Seed of the ablations.")


class IntegratedGradients(Estimator):
    """Mean gradient on the way from the intact model to an ablated one."""

    title = "integrated_gradients"
    steps: Steps = Field(default=8, description="Backward passes.")
    level: Annotated[float, Number(least=0, below=1)] = Field(
        default=0.0, description="The gates at the end of the way."
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
    patterns: Annotated[int, Whole(10)] = Field(default=512, description="Ablations; a fifth is held out.")
    rate: Annotated[float, Number(above=0, below=1)] = Field(
        default=0.1, description="Share of the components that each ablates."
    )
    ridge: Positive | None = Field(default=None, description="Penalty; null takes the best by cross-validation.")
    seed: Seed = Field(default=0, description="Seed of the ablations.")


class Shapley(Estimator):
    """Mean effect over orders in which components are added."""

    title = "shapley"
    permutations: Annotated[int, Whole(2, step=2)] = Field(
        default=16, description="Orders, half of them the reverse of the others."
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


AnyObjective = Annotated[
    Objective, by_name({Objective: PLAIN, JudgedObjective: JUDGED, Contrast: ("contrast",)}, own=OwnObjective)
]
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
