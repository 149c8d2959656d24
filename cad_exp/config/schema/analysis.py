"""The group `analysis`: one look at what a model represents."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from cad_exp.config.schema.base import Group, Own, OwnName, by_name
from cad_exp.config.schema.types import Choice, Count, Guidance, Positive, Seed, Several, Share, Steps, Str, Text, Whole

ANALYSES = ("class_overlap", "cka", "prototypes", "zero_shot", "image_text_score", "segmentation", "prompt_directions")


class Analysis(Group):
    """What every analysis is told."""

    name: Annotated[str, Choice(*ANALYSES)] = Field(description="Which one.")
    seed: Seed = Field(description="Seed of everything random in it.")


class OfClasses(Analysis):
    """What an analysis of the classes of a label is told, which a prompt names."""

    label: Str | None = Field(description="The label whose classes the prompts name; null: the first of the images.")
    prompt: Str = Field(description="A prompt with {} in place of the name of a class.")
    leave_out: Annotated[tuple[str, ...], Several(Text())] | None = Field(
        description="Classes that take no part; null: the class `nothing`, if there is one."
    )


class ClassOverlap(OfClasses):
    """How alike predictions are under the names of two classes."""

    title = "class_overlap"
    rephrased: Str = Field(description="The prompt in other words, with {}, for the control.")
    images: Count = Field(description="How many images are looked at, at most, each under every prompt.")


class Cka(Analysis):
    """Which layers and timesteps order the images alike."""

    title = "cka"
    timestep: Annotated[int, Whole(0, 999)] = Field(
        description="Timestep whose matrices are drawn: the nearest of `activations.timesteps`."
    )
    alike: Share = Field(description="Mean CKA above which neighbouring layers count as one part of the network.")


class Prototypes(Analysis):
    """Groups that features make without labels, and guidance by them."""

    title = "prototypes"
    label: Str | None = Field(
        description="The label whose classes are drawn and read in guided images; null: the first of the images."
    )
    hookpoint: Str = Field(
        description="One of activations.hookpoints; auto: where groups agree best with the label on training images."
    )
    timestep: Annotated[int, Whole(0, 999)] = Field(
        description="Where prototypes are learned: the nearest of activations.timesteps."
    )
    number: Annotated[int, Whole(2, 10_000)] = Field(description="Number of prototypes.")
    guided: Annotated[int, Whole(0, 100)] = Field(description="Prototypes towards which images are sampled; 0: none.")
    images: Annotated[int, Whole(1, 1000)] = Field(description="Images that are sampled towards each.")
    steps: Steps = Field(description="Steps of the sampler.")
    scale: Positive = Field(
        description="Strength of the guidance: the length of the push, as a share of the prediction's."
    )
    temperature: Positive = Field(description="Temperature of a prototype's probability: smaller is sharper.")
    image_encoder: Str | None = Field(
        description="A folder or hub id of a CLIP that reads sampled images; auto: the model's own; null: none."
    )


class ZeroShot(OfClasses):
    """Names of classes that no map to the text encoder's space has seen."""

    title = "zero_shot"
    hookpoint: Str = Field(description="One of activations.hookpoints; auto: chosen inside the training images.")
    timestep: Annotated[int, Whole(0, 999)] = Field(description="Of the metrics: the nearest of activations.timesteps.")
    folds: Annotated[int, Whole(2, 100)] = Field(description="Groups of classes, each left out once.")
    image_encoder: Str | None = Field(
        description="A folder or hub id of a CLIP that is read as well; auto: the model's own; null: none."
    )


class ImageTextScore(OfClasses):
    """Which of several prompts is true of an image, by cross-attention."""

    title = "image_text_score"
    images: Count = Field(description="How many images are looked at, at most, each under every prompt.")
    timesteps: Annotated[tuple[int, ...], Several(Whole(0, 999), 1)] | None = Field(
        description="Timesteps of the noise; null: those of `activations.timesteps`."
    )
    shots: Annotated[tuple[int, ...], Several(Whole(1))] = Field(
        description="Labelled images a class, for each tuning; an empty list leaves the tuning out."
    )


class Segmentation(OfClasses):
    """Where the object is, by word maps and a pyramid of features."""

    title = "segmentation"
    images: Count = Field(description="How many images are looked at, at most.")
    t: Annotated[int, Whole(0, 999)] = Field(description="Timestep at which the pyramid is read.")
    hookpoints: Annotated[tuple[str, ...], Several(Text(), least=1)] = Field(
        description="Layers of the pyramid: kinds, names or patterns (`python -m cad_exp hookpoints`)."
    )


class PromptDirections(OfClasses):
    """What prompts add to an activation, which names other activations."""

    title = "prompt_directions"
    rephrased: Str = Field(description="The prompt in other words, with {}; its activations must be named rightly too.")
    hookpoint: Str = Field(description="One place: its name, or a pattern of which the first is taken.")
    seeds: Count = Field(description="Trajectories of each prompt.")
    steps: Steps = Field(description="Steps of a trajectory.")
    guidance: Guidance = Field(description="Its guidance.")
    neutral: Str = Field(description="A prompt that names neither attribute.")
    attributes: Annotated[tuple[str, ...], Several(Text(), least=1)] = Field(
        description="Two prompts, to one of which the neutral one may lean."
    )


class OwnAnalysis(Analysis, Own):
    """A user's own analysis, which takes its own settings."""

    title = "an analysis of your own"
    name: Annotated[str, OwnName(*ANALYSES)] = Field(description="The name of its class.")


AnyAnalysis = Annotated[
    ClassOverlap | Cka | Prototypes | ZeroShot | ImageTextScore | Segmentation | PromptDirections | OwnAnalysis,
    by_name(
        {
            ClassOverlap: ("class_overlap",),
            Cka: ("cka",),
            Prototypes: ("prototypes",),
            ZeroShot: ("zero_shot",),
            ImageTextScore: ("image_text_score",),
            Segmentation: ("segmentation",),
            PromptDirections: ("prompt_directions",),
        },
        OwnAnalysis,
    ),
]
