"""The group `edit`: what to do with the components found, or a method that replaces weights."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field
from pydantic_core import PydanticCustomError

from cad_exp.config.schema.attribution import SCOPES
from cad_exp.config.schema.base import Group, Own, OwnName, Registered, by_name
from cad_exp.config.schema.estimators import ESTIMATORS
from cad_exp.config.schema.model import EDIT_ABLATIONS, Factor
from cad_exp.config.schema.types import (
    HUGE,
    Anything,
    Batch,
    Bool,
    Choice,
    Count,
    Guidance,
    Is,
    Number,
    Positive,
    Rate,
    Seed,
    Several,
    Share,
    Special,
    Steps,
    Str,
    Text,
    Whole,
    wrong,
)

FIXED = ("amplify", "none", "random")
WALKED = ("erase", "magnitude", "conceptprune", "salun_mask", "saeuron")
SCORED = (*FIXED, *WALKED)
GATED = ("joint", "hard_concrete", "greedy")
EDITS = (*SCORED, *GATED, "cad_public", "esd", "uce", "rece", "checkpoint")
Scale = Annotated[float, Number(least=0, most=1e6)]
Worst = Annotated[float, Number(least=0, most=10)]
WORST = (
    "The power of a prompt's movement that is its weight: prompts that have moved further count more. 0: all prompts "
    "that are to stay count alike."
)


def _strength(value: object) -> Any:
    """Check auto or a number above 0."""
    if value == "auto":
        return value
    try:
        return Number(above=0, most=1e6).check(value)
    except PydanticCustomError as error:
        raise wrong(f"{error.message()}, or auto") from error


class Edit(Group):
    """What to do with the components found."""

    title = ", ".join(FIXED)
    name: Str = Field(description="The method: which components are chosen, and how.")
    sign: Annotated[str, Choice("positive", "negative")] | None = Field(
        description="Whether components that make the concept are chosen, or those that suppress it."
    )
    factor: Factor | None = Field(
        description="What the chosen components are multiplied by; null takes `concept.factor`."
    )
    ablation: Annotated[str, Choice(*EDIT_ABLATIONS)] | None = Field(
        default=None,
        description="What takes their place: factor times themselves (scale), or what the base prompt would give "
        "(resample). The latter is for directions. null takes `concept.ablation`.",
    )
    ratio: Share | None = Field(description="Share of the components to change; null takes `concept.ratio`.")
    count: Annotated[int, Whole(1, 10**12)] | None = Field(
        description="Number of components to change, instead of a share."
    )
    rounding: Annotated[str, Choice("ceil", "floor")] = Field(
        description="How a share of a row or layer is rounded: up (ceil), or down (floor) as in CAD's public code."
    )
    scope: Annotated[str, Choice(*SCOPES)] | None = Field(
        description="Where the share holds: in each row, in each layer, or over the whole model."
    )
    needs_scores: Annotated[bool, Is(True)] = Field(
        default=True, description="Whether the method chooses components by their scores."
    )
    scored_by: Annotated[str, Registered("estimator", *ESTIMATORS)] | None = Field(
        default=None, description="The only estimator that the method goes by; null: any."
    )


class Walked(Edit):
    """An edit whose strength can choose itself."""

    title = ", ".join(WALKED)
    strength: Annotated[float | str, Special(_strength, "auto, or a number above 0")] | None = Field(
        default=None,
        description="auto tries `strengths` and takes the weakest that fulfils the wishes. null takes `ratio` or "
        "`count`. Of "
        "`joint` a number: the weight of what is left of the concept, against 1 for what moves elsewhere.",
    )
    strengths: Annotated[tuple[float, ...], Several(Number(above=0, most=1e6), least=1)] = Field(
        default=(), description="Strengths that are tried, weakest first; of edits by scores they are ratios."
    )
    erase: Rate = Field(default=0.02, description="Wish: at most this share of the concept's images still shows it.")
    keep: Rate = Field(default=0.99, description="Wish: at least this share of all other images shows what it names.")
    samples: Count = Field(default=32, description="Images of the concept by which the strength is chosen.")
    confirm: Annotated[int, Whole(0, HUGE)] = Field(
        default=64, description="Further images of the concept, which must confirm the chosen strength; 0: none."
    )
    retention_samples: Count = Field(
        default=2, description="Images of each other prompt by which the strength is chosen."
    )


class Gated(Walked):
    """An edit that finds the gates of all components."""

    title = "greedy"
    beyond: Annotated[float, Number(least=0, most=100)] = Field(
        description="How far past the prediction for the prompt of `instead` the concept's is led. 0: just there. 1: "
        "as far past it as the two lie apart."
    )
    instead: Annotated[str, Text()] | None = Field(
        default="auto",
        description="The prompt whose images take the concept's place. null: the base prompt. auto: the same, unless "
        "that is empty. Then it is the nearest prompt that is to stay for an object. For a style it is each thing that "
        "is to stay, without the style.",
    )
    landing: Annotated[int, Whole(0, HUGE)] = Field(
        description="Number of trajectories of the prompts of `instead`, together. Along them the concept is led to it "
        "and no further. 0: none, and the concept is led to the base prompt. The empty prompt has none."
    )
    early: Annotated[float, Number(least=0, most=2)] = Field(
        description="How much more early timesteps count, which change the picture more: 0 all alike, 2 by that "
        "change alone."
    )
    steps: Annotated[int, Whole(1, HUGE)] = Field(description="Training steps for the first strength.")
    more_steps: Annotated[int, Whole(1, HUGE)] = Field(
        description="Training steps for each further strength, which begins where the one before ended."
    )
    batch: Batch = Field(
        description="Noisy latents of the concept, and as many of what is to stay, in each training step."
    )
    least: Annotated[float, Number(least=0, most=1)] = Field(
        description="Changes of a gate that are smaller than this are left out."
    )
    trajectories: Count = Field(description="Trajectories of each prompt that is to stay.")
    retain: Annotated[tuple[str, ...], Several(Text())] | None = Field(
        description="Prompts that are to stay; null takes all things that the model's world names."
    )


class Joint(Gated):
    """The gates of all components at once."""

    title = "joint"
    lowest: Annotated[float, Number(least=-100, below=0)] = Field(
        description="The least change of a gate: -1 switches off, -2 reverses."
    )
    highest: Annotated[float, Number(least=0, most=100)] = Field(
        description="The greatest change of a gate: 1 doubles a component."
    )
    rate: Annotated[float, Number(above=0, most=1)] = Field(
        description="How far a gate goes in one training step, at most."
    )
    worst: Worst = Field(description=WORST)


class HardConcrete(Gated):
    """Masks of 0 and 1, whose odds are learned."""

    title = "hard_concrete"
    temperature: Annotated[float, Number(above=0, most=100)] = Field(
        description="Softness of the masks: the nearer to 0, the fewer lie between 0 and 1."
    )
    sparsity: Annotated[float, Number(least=0, most=1e6)] = Field(
        description="Penalty for changing components: what it would be if all were changed."
    )
    rate: Annotated[float, Number(above=0, most=100)] = Field(
        description="How far the log odds of a mask go in one training step, at most."
    )
    worst: Worst = Field(description=WORST)


class WithoutScores(Edit):
    """A method that chooses no components."""

    needs_scores: Annotated[bool, Is(False)] = Field(
        default=False, description="Whether the method chooses components by their scores."
    )


class PublicCad(Edit):
    """CAD as its public code does it."""

    title = "cad_public"
    bare_prompt: Bool = Field(
        default=True,
        description="Whether `concept.bare.prompt` takes the place of `concept.prompt`, where the concept has it.",
    )


class Replacing(WithoutScores):
    """A method that gives whole weights new values."""

    prompt: Anything = Field(description="The prompt that is erased.")
    guide: Anything = Field(description="The prompt that takes its place.")


class Esd(Replacing):
    """Fine-tuning away from the concept's guidance."""

    title = "esd"
    method: Annotated[str, Choice("esd-x", "esd-x-strict", "esd-u", "esd-all")] = Field(
        description="What is trained: cross-attention (esd-x), its keys and values, all else (esd-u), or everything."
    )
    steps: Annotated[int, Whole(1, HUGE)] = Field(description="Training steps.")
    lr: Annotated[float, Number(above=0, most=1)] = Field(description="Learning rate.")
    negative_guidance: Annotated[float, Number(least=0, most=1000)] = Field(
        description="How far beyond the prediction for `guide` the model is led: a factor of the guidance direction."
    )
    batch_size: Batch = Field(description="Latents for each training step.")
    sampling_steps: Steps = Field(description="Steps of the trajectories that the latents come from.")
    sampling_guidance: Guidance = Field(description="Guidance of these trajectories.")
    checkpoint_every: Count = Field(description="Steps between two files from which a stopped training goes on.")
    seed: Seed = Field(description="Seed of the training.")


class Uce(Replacing):
    """New keys and values of the text, computed at once and without training."""

    title = "uce"
    preserve: Annotated[tuple[str, ...], Several(Text(empty=True))] = Field(
        description="Prompts whose keys and values in cross-attention stay."
    )
    tokens: Annotated[str, Choice("subject", "last", "all")] = Field(
        description="Which positions of the text: from the last word to the end, that word alone, or all."
    )
    lamb: Positive = Field(description="Weight of the old matrices: the larger, the less they change.")
    erase_scale: Positive = Field(description="Weight of what is erased.")
    preserve_scale: Scale | None = Field(
        description="Weight of what stays; null is the larger one of 0.1 and 1 / number of prompts."
    )


class Rece(Uce):
    """UCE, then what brings the concept back is erased too."""

    title = "rece"
    epochs: Annotated[int, Whole(1, 1000)] = Field(description="How often a text that brings it back is erased.")
    regularisation: Positive = Field(description="Penalty on the texts that bring it back.")


class Checkpoint(WithoutScores):
    """Published weights of an erased model."""

    title = "checkpoint"
    path: Str = Field(description="The file of weights.")


class OwnEdit(Edit, Own):
    """A user's own method, which takes its own settings."""

    title = "a method of your own"
    name: Annotated[str, OwnName(*EDITS)] = Field(description="The name of its class.")
    needs_scores: Bool = Field(default=True, description="Whether the method chooses components by their scores.")


AnyEdit = Annotated[
    Edit,
    by_name(
        {
            Edit: FIXED,
            Walked: WALKED,
            Gated: ("greedy",),
            Joint: ("joint",),
            HardConcrete: ("hard_concrete",),
            PublicCad: ("cad_public",),
            Esd: ("esd",),
            Uce: ("uce",),
            Rece: ("rece",),
            Checkpoint: ("checkpoint",),
        },
        own=OwnEdit,
    ),
]
