"""What a results.json holds, as types. `python -m cad_exp.reporting.schema` prints them as a JSON Schema."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from cad_exp.evaluation import variants

VERSION = 2
# "attribution": facts of the scores, not of images; last, what probes read from, and dictionaries
VARIANTS = (*variants.VARIANTS, "attribution", *variants.SOURCES, *variants.DICTIONARIES, *variants.ANALYSED)
LARGEST = 1e100  # of a metric's value: beyond it sums overflow


def _known(variant: str) -> str:
    if variant not in VARIANTS:
        raise ValueError(f"not one of {', '.join(VARIANTS)}")
    return variant


Number = Annotated[float, Field(ge=-LARGEST, le=LARGEST)]
Variant = Annotated[str, AfterValidator(_known), Field(json_schema_extra={"enum": list(VARIANTS)})]


class Change(BaseModel):
    """A paired change of a metric against another variant."""

    model_config = ConfigDict(extra="allow", strict=True)
    value: Number | None = Field(description="This variant's value less the other's, on the same prompts and seeds.")
    low: Number | None = Field(description="Lower end of its 95 % interval; null where there is none.")
    high: Number | None = Field(description="Upper end.")


class Metric(BaseModel):
    """One number of a run."""

    model_config = ConfigDict(extra="forbid", strict=True)
    name: str = Field(description="What is measured.")
    variant: Variant = Field(description="Of which model or source.")
    value: Number | None = Field(description="The number; null where it is not defined.")
    low: Number | None = Field(description="Lower end of the 95 % interval; null where there is none.")
    high: Number | None = Field(description="Upper end.")
    n: int | None = Field(ge=0, description="Samples behind it.")
    higher_is_better: bool | None = Field(description="The direction that this run wants; null: neither.")
    definition: dict[str, Any] = Field(description="What pins it down: judge, weights, prompts, seeds, interval.")
    changes: dict[str, Change] = Field(description="Other variant -> paired change against it.")


class Run(BaseModel):
    """What ran, on what, and from which code. A task adds entries of its own."""

    model_config = ConfigDict(extra="allow", strict=True)
    complete: bool = Field(description="Whether everything was made.")
    seconds: dict[str, float] = Field(description="Wall-clock seconds of each stage.")
    config: dict[str, Any] = Field(default_factory=dict, description="The resolved configuration.")
    config_hash: str | None = Field(default=None, description="Hash of what it asks for.")
    seed: int | None = Field(default=None, description="The run's seed.")
    git: str | None = Field(default=None, description="Commit of the checkout, with -dirty; null without one.")
    versions: dict[str, str | None] = Field(default_factory=dict, description="Of Python and the libraries.")
    device: str | None = Field(default=None, description="Where it ran.")
    files: dict[str, str] | None = Field(default=None, description="SHA-256 of every file of a complete run.")
    verdict: dict[str, Any] = Field(default_factory=dict, description="What the metrics say, in words.")
    left_out: dict[str, Any] = Field(default_factory=dict, description="What was not made, and why.")


class ResultFile(BaseModel):
    """results.json of a run of cad_exp."""

    model_config = ConfigDict(extra="forbid", strict=True)
    schema_version: Literal[2] = Field(description="The version of this schema.")
    run: Run
    metrics: list[Metric]
    checksum: str = Field(description="SHA-256 of the JSON with sorted keys and without this entry.")


FIELDS = tuple(Metric.model_fields)


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of results.json."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **ResultFile.model_json_schema()}


if __name__ == "__main__":
    print(json.dumps(json_schema(), indent=2))
