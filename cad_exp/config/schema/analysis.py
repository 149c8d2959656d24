"""The group `analysis`: one look at what a model represents."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from cad_exp.config.schema.base import Group, Own, OwnName, by_name
from cad_exp.config.schema.types import Choice, Seed, Several, Str, Text

ANALYSES = ("class_overlap",)


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


class OwnAnalysis(Analysis, Own):
    """A user's own analysis, which takes its own settings."""

    title = "an analysis of your own"
    name: Annotated[str, OwnName(*ANALYSES)] = Field(description="The name of its class.")


AnyAnalysis = Annotated[ClassOverlap | OwnAnalysis, by_name({ClassOverlap: ("class_overlap",)}, OwnAnalysis)]
