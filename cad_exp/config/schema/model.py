"""The groups `model` and `concept`: where to look, and for what."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field
from pydantic_core import PydanticCustomError

from cad_exp.config.schema.attribution import DIRECTED, GRANULARITIES, OBJECTIVES
from cad_exp.config.schema.base import ByName, Group, Own, OwnName, Registered, shipped
from cad_exp.config.schema.estimators import ESTIMATORS
from cad_exp.config.schema.types import (
    KEY,
    Anything,
    Choice,
    Count,
    Guidance,
    Name,
    Number,
    Several,
    Share,
    Special,
    Steps,
    Str,
    Text,
    Whole,
    wrong,
)

JUDGES = ("real", "none")  # and those of plug-ins
PerGranularity = Annotated[str, Registered("granularity", *GRANULARITIES, *DIRECTED)]
Prompts = Annotated[tuple[str, ...], Several(Text(), least=1)]


EDIT_ABLATIONS = ("scale", "resample")


def factor(value: object) -> Any:
    """Check a factor that changes something: a finite number other than 1."""
    try:
        Number(least=-1000, most=1000).check(value)
    except PydanticCustomError as error:
        raise wrong(f"{error.message()}: 0 switches components off, -1 reverses them") from error
    if value == 1:
        raise wrong(
            "leaves every component as it is: 0 switches components off, -1 reverses them, edit=none edits none"
        )
    return value


Factor = Annotated[
    float, Special(factor, "a number from -1,000 to 1,000, but not 1: 0 switches components off, -1 reverses them")
]


def _erasing(value: object) -> Any:
    if isinstance(value, dict):
        raise wrong(f"{KEY} must be a list of overrides, each in quotes: model.erased=['edit=uce','edit.tokens=all']")
    return Several(Text()).check(value)


class EsdHere(Group):
    """What `edit=esd` takes on a model where its own config leaves it open."""

    steps: Count = Field(description="Training steps.")
    lr: Annotated[float, Number(above=0, most=1)] = Field(description="Learning rate.")


class ErasureMethods(Group):
    """Settings of erasing methods on a model."""

    esd: EsdHere | None = Field(default=None, description="Those of `edit=esd`.")


class Model(Group):
    """The text-to-image model to look into."""

    name: Str = Field(description="What the model is called in results and tables.")
    path: Str = Field(
        description="A built-in model, a diffusers folder, a single safetensors file, or the id of a model on the hub."
    )
    config: Str | None = Field(
        default=None,
        description="Of a single file: the folder or hub id of the model that it descends from, for its configs.",
    )
    revision: Str | None = Field(description="The commit or branch on the hub; null takes the newest one.")
    steps: Steps = Field(description="Sampling steps of generated images.")
    guidance: Guidance = Field(
        description="Guidance of generated images; 1 follows the prompt alone, more follows it more strongly."
    )
    resolution: Annotated[int, Whole(8, 16_384, step=8)] | None = Field(
        description="Width and height of the images in pixels; null takes the model's own."
    )
    judge: Annotated[str, Registered("judge", *JUDGES)] | None = Field(
        description="Who judges its images where `judge=auto` leaves it open; null is nobody."
    )
    edits: Annotated[tuple[str, ...], Several(Text())] = Field(
        description="Edit files to apply before the run, in this order."
    )
    weights: Str | None = Field(description="A file of weights to lay over the denoiser, such as an erased model's.")
    lora: Annotated[tuple[str, ...], Several(Text())] = Field(
        default=(), description="LoRA layers to add to the weights: safetensors files, or ids on the hub."
    )
    lora_scale: Annotated[float, Number(least=-100, most=100)] = Field(
        default=1.0, description="What these layers are multiplied by; 0 leaves the model as it is."
    )
    erased: Annotated[tuple[str, ...], Special(_erasing, "a list of overrides")] | None = Field(
        description="Overrides of the run that erases the model first, such as `['edit=uce']`."
    )
    erasure_methods: ErasureMethods | None = Field(
        default=None, description="Settings of erasure methods on this model, where the method's own are null."
    )


class Bare(Group):
    """A concept's name alone, as the public code of CAD asks for it."""

    prompt: Str = Field(description="The prompt that asks for the concept, with nothing beside it.")
    base_prompt: Anything = Field(description="The prompt that it is compared with.")


class Concept(Group):
    """What to find in the model."""

    title = "those of the package"
    name: Annotated[str, Name()] = Field(description="What the concept is called; part of the run folder's name.")
    kind: Str = Field(description="What a label is of: object, style or nudity; any other word has no label.")
    prompt: Str = Field(description="The prompt that asks for the concept.")
    base_prompt: Anything = Field(description="The prompt that it is compared with; empty is no prompt at all.")
    evaluation_prompts: Prompts = Field(description="Prompts of the images that should show the concept.")
    validation_prompts: Prompts | None = Field(
        default=None,
        description="Prompts of the images by which `edit.strength=auto` chooses; no table shows them. null takes the "
        "evaluation prompts, with other seeds.",
    )
    label: Anything | None = Field(description="What the judge calls the concept; null measures quality only.")
    ratio: dict[PerGranularity, Share] = Field(
        description="Share of the components to edit where `edit.ratio` is null, for each granularity."
    )
    amplify_ratio: Share = Field(
        description="Share of the components that `edit=amplify` switches off, at every granularity."
    )
    factor: dict[PerGranularity, Factor] = Field(
        description="What chosen components are multiplied by where `edit.factor` is null, for each granularity."
    )
    ablation: dict[PerGranularity, Annotated[str, Choice(*EDIT_ABLATIONS)]] = Field(
        description="What takes their place where `edit.ablation` is null, for each granularity; scale if not named."
    )
    objective: dict[PerGranularity, Annotated[str, OwnName(*OBJECTIVES)]] = Field(
        description="The objective that `objective=auto` takes, for each granularity."
    )
    estimator: Annotated[str, OwnName(*ESTIMATORS)] = Field(description="The estimator that `estimator=auto` takes.")
    noun: Str = Field(default="", description="What captions of images call the object.")
    artist: Str = Field(default="", description="What captions of images call the painter of the style.")
    bare: Bare | None = Field(default=None, description="What `edit=cad_public` asks for instead.")


class OwnConcept(Concept, Own):
    """A concept of the user's own, which may hold further keys to refer to."""

    title = "a concept of your own"


def _concept(given: dict[str, Any]) -> type[Group]:
    return Concept if given.get("name", "") in (*shipped("concept"), "") else OwnConcept


AnyConcept = Annotated[Concept, ByName(_concept, Concept, OwnConcept)]
