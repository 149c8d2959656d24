"""The groups `prompts` and `retention_prompts`: a set from a file, a generated one, or a known one."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from cad_exp.config.schema.base import ByName, Group
from cad_exp.config.schema.types import SEEDS, Bool, Choice, Count, Kind, Several, Special, Str, Text, Whole, wrong

COLUMNS = ("prompt", "seed", "guidance", "width", "height", "label", "id")
GENERATED = ("objects", "artists", "persons")
Texts = Annotated[tuple[str, ...], Several(Text())]
UNUSED = "Of a generated set; a file has no use for it."


def _cells(value: object) -> Any:
    """Check column names, each with the value or values that its cells may have."""
    if not isinstance(value, dict):
        raise wrong("names no column and its values, as in {categories: sexual}")
    for column, cell in value.items():
        if any(isinstance(item, (dict, list)) for item in (cell if isinstance(cell, list) else [cell])):
            raise wrong(f"must have one value or a list of values for '{column}'")
    return value


def _column(value: object) -> Any:
    """Check the name of a column; one of digits needs no quotes."""
    return Whole(0).check(value) if isinstance(value, int) and not isinstance(value, bool) else Text().check(value)


class Template(Kind):
    """A sentence with one place for a noun."""

    def check(self, value: object) -> Any:
        """Return the sentence; raise `wrong` unless it holds exactly one {}."""
        if not isinstance(value, str) or value.count("{}") != 1:
            raise wrong("must hold one {}, where the noun goes")
        return value

    def allowed(self) -> str:
        """Return what a sentence must hold."""
        return "a sentence that holds one {}, where the noun goes"


class Named(Group):
    """Prompts that need no settings."""

    title = "concept, world, none"
    name: Annotated[str, Choice("concept", "world", "none")] = Field(
        description="The concept's own prompts, those of the built-in world, or none."
    )


class NamedOthers(Group):
    """Other prompts that need no settings."""

    title = "auto, world, none"
    name: Annotated[str, Choice("auto", "concept", "world", "none")] = Field(
        description="What goes with `prompts`, those of the built-in world, or none."
    )


class FromFile(Group):
    """A set of prompts from a file."""

    title = "a set from a file: i2p, imagenette, coco30k and others"
    name: Str = Field(description="The name of the set.")
    path: Str | None = Field(description="The file; null looks in the folder CAD_EXP_PROMPTS, then on the hub.")
    file: Str | None = Field(description="The file's name there.")
    hub: Str | None = Field(description="Data set on the Hugging Face hub.")
    revision: Str | None = Field(description="Its commit or branch.")
    encoding: Str | None = Field(description="Encoding of a CSV file; null is UTF-8 or UTF-16.")
    columns: dict[Annotated[str, Choice(*COLUMNS)], Annotated[str, Special(_column, "a text")] | None] = Field(
        description="The column of each field; null where the file has none."
    )
    kind: Str = Field(description="What the labels are: object or style; nudity and caption have none.")
    labels: Texts | None = Field(description="Labels that the label column may hold; null allows any.")
    where: Annotated[dict[str, Any], Special(_cells, "columns, each with one value or a list")] | None = Field(
        description="Only rows whose cells have these values."
    )
    without: Texts = Field(description="Words or phrases; rows whose prompt holds one are left out.")
    per_label: Count | None = Field(description="Only the first so many rows of each label.")
    offset: Annotated[int, Whole(0)] | None = Field(description="Rows to skip.")
    limit: Count | None = Field(description="Rows to take; null takes all.")
    per_prompt: Count = Field(description="Images of each row.")
    duplicates: Annotated[str, Choice("drop", "keep", "error")] = Field(
        description="What to do with rows that ask for the same image."
    )
    public_code: Bool = Field(description="Whether guidance, sizes and seeds are those of the public code of CAD.")
    public_seed: Annotated[int, Whole(0, SEEDS)] | None = Field(
        description="The seed that the public code gives to every row; null takes the row's own."
    )
    # A study that sets these for its generated prompts may be run with a file instead.
    groups: Annotated[tuple[str, ...], Several(Choice(*GENERATED))] = Field(default=(), description=UNUSED)
    templates: Annotated[tuple[str, ...], Several(Template())] = Field(default=(), description=UNUSED)
    persons: Texts = Field(default=(), description=UNUSED)


class Templates(Group):
    """A generated set of prompts."""

    title = "templates: generated"
    name: Str = Field(description="The name of the set.")
    groups: Annotated[tuple[str, ...], Several(Choice(*GENERATED))] = Field(description="What is generated.")
    templates: Annotated[tuple[str, ...], Several(Template())] = Field(description="Sentences with {} for the noun.")
    objects: Texts = Field(description="Nouns.")
    artists: Texts = Field(description="Painters.")
    subjects: Texts = Field(description="What the painters paint.")
    persons: Texts = Field(description="Words for persons.")
    per_label: Count | None = Field(description="Only the first so many prompts of each label.")
    offset: Annotated[int, Whole(0)] | None = Field(description="Prompts to skip.")
    limit: Count | None = Field(description="Prompts to take; null takes all.")
    per_prompt: Count = Field(description="Images of each prompt.")
    without: Texts = Field(default=(), description="Words or phrases; prompts that hold one are left out.")


def _by_content(named: type[Group]) -> ByName:
    def choose(given: dict[str, Any]) -> type[Group]:
        return FromFile if "columns" in given else Templates if "groups" in given else named

    return ByName(choose, named, FromFile, Templates)


AnyPrompts = Annotated[Group, _by_content(Named)]
AnyRetentionPrompts = Annotated[Group, _by_content(NamedOthers)]
