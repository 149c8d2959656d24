"""The groups `granularity`, `noisy_latents` and `objective`: what gets a score, where, and for what."""

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
    Rate,
    Seed,
    Several,
    Special,
    Steps,
    Str,
    Text,
)
from cad_exp.utils import registry

GRANULARITIES = ("head", "layer", "neuron", "weight")
OF_AUTOENCODERS = ("latent", "principal")
DIRECTED = (*OF_AUTOENCODERS, "mean_difference")  # directions of activations
SCOPES = ("row", "layer", "global")
KINDS: tuple[str, ...] = ("self-attention", "cross-attention", "joint-attention", "feed-forward", "feed-forward-in")
KINDS += ("text-attention", "text-feed-forward")
ABLATIONS = ("zero", "mean", "resample")
PLAIN = ("erase", "amplify", "projection", "guidance_norm", "auto")
JUDGED = ("clip", "judge")
WEIGHTINGS = ("uniform", "snr", "x0", "image")
OBJECTIVES = (*(name for name in PLAIN if name != "auto"), *JUDGED, "contrast")


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

    title = ", ".join(OF_AUTOENCODERS)
    name: Annotated[str, Choice(*OF_AUTOENCODERS)] = Field(
        description="What one component is; part of the run folder's name."
    )
    kinds: None = Field(default=None, description="Nothing to choose: directions belong to no kind of module.")
    autoencoders: Str = Field(description="The folder `autoencoders` of a run of task=sae.")
    hookpoints: Annotated[tuple[str, ...], Several(Text(), least=1)] | None = Field(
        description="Which hookpoints of that folder; null takes all."
    )


class MeanDifference(Granularity):
    """The direction in which the concept moves the mean activation of a place."""

    title = "mean_difference"
    name: Annotated[str, Choice("mean_difference")] = Field(
        description="What one component is; part of the run folder's name."
    )
    kinds: None = Field(default=None, description="Nothing to choose: directions belong to no kind of module.")
    hookpoints: Annotated[tuple[str, ...], Several(Text(), least=1)] | None = Field(
        description="Places in the network; null takes the attentions that read the prompt."
    )
    prompt: Anything = Field(description="The prompt whose mean activation counts.")
    base_prompt: Anything = Field(description="The prompt whose mean activation is subtracted.")
    samples: Count = Field(description="Trajectories of the prompt, at whose noisy latents the means are taken.")
    steps: Steps = Field(description="Steps of each trajectory.")
    guidance: Guidance = Field(description="Guidance of the trajectories.")
    seed: Seed = Field(description="Seed of the trajectories.")


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
    if given.get("name") == "mean_difference":
        return MeanDifference
    return OfAutoencoders if given.get("name") in OF_AUTOENCODERS else Granularity


AnyGranularity = Annotated[
    Granularity | OfAutoencoders | MeanDifference | OwnGranularity,
    ByName(_of_whom, Granularity, OfAutoencoders, MeanDifference, OwnGranularity),
]


class NoisyLatents(Group):
    """The noisy images at which the model is asked."""

    samples: Count = Field(description="Number of trajectories.")
    steps: Steps = Field(description="Steps of each trajectory.")
    independent: Bool = Field(
        description="Whether each trajectory gives one noisy latent, at another step in each; false: one at every step."
    )
    guidance: Guidance = Field(
        description="Guidance of the trajectories; 0 follows the base prompt, 1 the concept's prompt alone."
    )
    batch_size: Batch = Field(description="Trajectories that are computed together.")
    seed: Seed = Field(description="Seed of the trajectories.")
    images: Str | None = Field(description="A folder of real images to noise; null takes images that the model makes.")


class Objective(Group):
    """What counts as showing the concept."""

    name: Str = Field(description="The formula.")
    ablation: Annotated[str, Choice(*ABLATIONS)] = Field(
        default="zero", description="What stands for an ablated component: nothing, its mean, or the base prompt's."
    )
    weighting: Annotated[str, Choice(*WEIGHTINGS)] = Field(
        default="uniform",
        description="Which timesteps count for more. `snr`: late ones, by the signal-to-noise ratio, at most 5. `x0`: "
        "early ones, by how far the prediction moves the clean latents. `image`: by how far it moves the end of its "
        "trajectory.",
    )


class NoiseObjective(Objective):
    """A comparison of predictions."""

    title = ", ".join(PLAIN)
    name: Annotated[str, Choice(*PLAIN)] = Field(description="The formula; auto takes the one of the concept.")
    frequencies: Rate = Field(
        default=1.0,
        description="Share of the spatial frequencies that count, from the lowest. 0: the mean over all positions.",
    )


class JudgedObjective(Objective):
    """What a judge finds in the predicted image."""

    title = "clip, judge"
    name: Annotated[str, Choice(*JUDGED)] = Field(description="Which judge is asked.")
    guidance: Guidance = Field(
        default=1.0, description="Guidance of the predicted image; 1 is the prediction for the concept alone."
    )


class Contrast(Objective):
    """An objective for the concept minus its mean for prompts to retain."""

    title = "contrast"
    name: Annotated[str, Choice("contrast")] = Field(description="The formula.")
    of: Annotated[str, Registered("objective", *OBJECTIVES[:-1])] = Field(
        default="projection", description="The objective that is used for the concept and for the prompts of `retain`."
    )
    weight: Annotated[tuple[float, ...], Special(lambda value: weights(value), "a number or a list of numbers")] = (
        Field(
            default=(1.0,),
            description="Weight of the mean for `retain`, which is subtracted; or one number for each prompt.",
        )
    )
    retain: Annotated[tuple[str, ...], Several(Text(), least=1)] = Field(
        description="Prompts whose objective should not change."
    )
    base_prompt: Anything = Field(default="", description="The prompt that retained ones are compared with.")
    guidance: Guidance = Field(default=1.0, description="Guidance of the predicted image, where a judge is asked.")
    frequencies: Rate = Field(default=1.0, description="Share of the spatial frequencies that count, where none is.")


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


AnyObjective = Annotated[
    Objective, by_name({NoiseObjective: PLAIN, JudgedObjective: JUDGED, Contrast: ("contrast",)}, own=OwnObjective)
]
