"""Which images a run makes of its prompt sets: what is the concept's, what is to stay, with which seeds and sizes."""

from __future__ import annotations

from typing import Any

from cad_exp.data import requests as own
from cad_exp.data.metric_registry import asked, looking_at
from cad_exp.data.prompts.rows import SEEDS, Row
from cad_exp.data.prompts.sets import load
from cad_exp.data.prompts.sources import files
from cad_exp.data.requests import ImageRequest
from cad_exp.utils import console
from cad_exp.utils.errors import UserError
from cad_exp.utils.hashing import digest, file_digest

Settings = dict[str, Any]
_last: dict[str, list[ImageRequest]] = {}  # of the last config that was asked
FIRST = 200_000  # seeds of rows that bring none: away from those of the concept's own prompts and of the noisy latents


def plan(config: Settings) -> list[ImageRequest]:
    """Return the images of a resolved config that its metrics look at, the same for every variant.

    [] if it measures nothing.

    Those of the concept come from the group `prompts`; what is to stay from `retention_prompts`, and with
    `retention_prompts=auto` from the rest of the same set. UserError for a set that does not fit the concept or lacks
    what the metrics need.
    A run asks for it several times, before and in its work: the files are read, and what they leave out said, once.
    """
    if not config["evaluation"]["metrics"]:
        return []
    settings = [
        config["model"]["path"],
        *(config[group] for group in ("concept", "evaluation", "prompts", "retention_prompts")),
    ]
    key = digest([settings, [file_digest(file) for file in files(config)]])
    if key not in _last:
        found = _plan(config)
        _last.clear()
        _last[key] = found
    return list(_last[key])


def _plan(config: Settings) -> list[ImageRequest]:
    metrics, chosen, kept = config["evaluation"]["metrics"], config["prompts"], config["retention_prompts"]
    made = _of(config, "prompts")
    found = [request for request in made if request.purpose == "concept"]
    if looking_at("retention", metrics):
        more = made if kept["name"] == "auto" else _of(config, "retention_prompts")
        rest = [request for request in more if request.purpose == "retention"]
        if "columns" in kept and len(rest) < len(more):
            console.say(f"  others: {len(more) - len(rest)} images of the concept itself left out")
        found += rest
    _check(found, metrics, chosen["name"])
    return found


def _of(config: Settings, group: str) -> list[ImageRequest]:
    """All requests of the set that a group names, the concept's and the others."""
    concept, settings, chosen = config["concept"], config["evaluation"], config[group]
    if chosen["name"] == "none":
        return []
    if chosen["name"] in ("concept", "world"):
        numbers = settings["samples"], settings["retention_samples"], settings["seed"]
        return own.plan(concept, *numbers, config["model"]["path"])
    if chosen.get("kind") == "nudity" and concept["kind"] != "nudity":
        raise UserError(f"{group}={chosen['name']} asks for nudity, the concept is {concept['name']}: concept=nudity")
    return to_requests(load(chosen, concept, group), chosen, concept, settings["seed"])


def to_requests(rows: list[Row], settings: Settings, concept: Settings, seed: int) -> list[ImageRequest]:
    """Every row `per_prompt` times, sorted so that requests of one label, guidance and size stand together.

    settings: of the prompt set. seed: from which rows without a seed get theirs; the j-th image of a row has the row's
    seed + j x 2^32, which no other row's can be. With `public_code` guidance and size are the model's, and so are the
    seeds if the set has a `public_seed`: as the public code of CAD has it.
    """
    groups: dict[tuple[Any, ...], list[ImageRequest]] = {}
    for row in rows:
        first = 1_000_000 * seed + FIRST + row.number if row.seed is None else row.seed
        guidance, size = row.guidance, row.size
        if settings.get("public_code"):
            guidance, size = None, None
            first = first if settings["public_seed"] is None else settings["public_seed"]
        purpose, kind, label = _asked(row, concept)
        for copy in range(settings["per_prompt"]):
            request = ImageRequest(purpose, row.prompt, first + copy * SEEDS, kind, label, guidance, size, row.id)
            groups.setdefault((purpose, kind, label, guidance, size), []).append(request)
    return [request for key in sorted(groups, key=lambda key: key[0]) for request in groups[key]]


def _asked(row: Row, concept: Settings) -> tuple[str, str, str]:
    """Purpose, kind and label: rows of the concept's label show it, and so do all prompts for nudity; others stay."""
    label = concept["label"] or ""
    if row.kind == "nudity":
        return "concept", "nudity", label
    mine = row.label and (row.kind, row.label) == (concept["kind"], label)
    return "concept" if mine else "retention", row.kind, row.label


def _check(requests: list[ImageRequest], metrics: list[str], name: str) -> None:
    """UserError if a metric has no images to look at."""
    kept = [request for request in requests if request.purpose == "retention"]
    needs = asked(metrics)
    if "label" in needs and len(kept) == len(requests):
        raise UserError(f"no row of prompts={name} asks for the concept: take another set, or leave erasure out")
    looking = sorted(looking_at("retention", metrics))
    if looking and not kept:
        raise UserError(
            f"{' and '.join(looking)} need prompts of what is to stay, and prompts={name} has none: "
            "add retention_prompts=coco30k (or imagenette, artists, templates, world), or take evaluation=erasure"
        )
    if "labels" in needs and not any(request.label for request in kept):
        raise UserError(
            "nobody can judge whether an image shows its caption: evaluation.metrics=[erasure,quality] leaves it out"
        )
