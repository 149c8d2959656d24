"""The group `analysis`: one look at what a model represents."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from cad_exp.config.schema.base import Group, Own, OwnName, by_name
from cad_exp.config.schema.types import Choice, Count, Seed, Several, Str, Text, Whole

ANALYSES = ("class_overlap", "image_text_score", "segmentation")


class Analysis(Group):
    """What every analysis is told."""

    name: Annotated[str, Choice(*ANALYSES)] = Field(description="Which one.")
    seed: Seed = Field(description="Seed of everything random in it.")


class ClassOverlap(Analysis):
    """How alike predictions are under the names of two classes."""

    title = "class_overlap"
    label: Str | None = Field(description="The label whose classes are compared; null: the first of the images.")
    prompt: Str = Field(description="A prompt with {} in place of the name of a class.")
    rephrased: Str = Field(description="The same in other words, for the control.")
    leave_out: Annotated[tuple[str, ...], Several(Text())] | None = Field(
        description="Classes that no prompt names; null: the class `nothing`, if there is one."
    )


class ImageTextScore(Analysis):
    """Which of several prompts is true of an image, by cross-attention."""

    title = "image_text_score"
    label: Str | None = Field(description="The label whose classes the prompts name; null: the first of the images.")
    prompt: Str = Field(description="A prompt with {} in place of the name of a class.")
    images: Count = Field(description="How many images are looked at, at most, each under every prompt.")
    timesteps: Annotated[tuple[int, ...], Several(Whole(0, 999), 1)] | None = Field(
        description="Timesteps of the noise; null: those of `activations.timesteps`."
    )
    shots: Annotated[tuple[int, ...], Several(Whole(1))] = Field(
        description="Labelled images a class, for each tuning; an empty list leaves the tuning out."
    )
    leave_out: Annotated[tuple[str, ...], Several(Text())] | None = Field(
        description="Classes that no prompt names; null: the class `nothing`, if there is one."
    )


class Segmentation(Analysis):
    """Where the object is, by word maps and a pyramid of features."""

    title = "segmentation"
    label: Str | None = Field(description="The label that names what the images' masks show; null: the first.")
    prompt: Str = Field(description="A prompt with {} in place of the name of a class.")
    images: Count = Field(description="How many images are looked at, at most.")
    t: Annotated[int, Whole(0, 999)] = Field(description="Timestep at which the pyramid is read.")
    hookpoints: Annotated[tuple[str, ...], Several(Text(), least=1)] = Field(
        description="Layers of the pyramid: kinds, names or patterns (`python -m cad_exp hookpoints`)."
    )
    leave_out: Annotated[tuple[str, ...], Several(Text())] | None = Field(
        description="Classes without an object; null: the class `nothing`, if there is one."
    )


class OwnAnalysis(Analysis, Own):
    """A user's own analysis, which takes its own settings."""

    title = "an analysis of your own"
    name: Annotated[str, OwnName(*ANALYSES)] = Field(description="The name of its class.")


AnyAnalysis = Annotated[
    ClassOverlap | ImageTextScore | Segmentation | OwnAnalysis,
    by_name(
        {ClassOverlap: ("class_overlap",), ImageTextScore: ("image_text_score",), Segmentation: ("segmentation",)},
        OwnAnalysis,
    ),
]
