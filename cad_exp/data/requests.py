"""The images to make: what each is for, its prompt and seed, and what it should show."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from cad_exp.config.own_prompts import is_thing
from cad_exp.models.sources import MODELS

OBJECTS: tuple[str, ...] = ("tench", "English springer", "cassette player", "chain saw", "church", "French horn")
OBJECTS += ("garbage truck", "gas pump", "golf ball", "parachute")
ARTISTS = ("Pablo Picasso", "Van Gogh", "Rembrandt", "Andy Warhol", "Caravaggio")


@dataclass(frozen=True)
class ImageRequest:
    """One image to make: its prompt and seed, what it is for (`concept` or `retention`) and what it should show.

    kind: object, style, nudity, clothed, or caption, with label "", which nobody judges. guidance (of the sampler) and
    size, (height, width) in pixels: None for the model's. row: the id of its row in a prompt set, "" without a set.
    """

    purpose: str
    prompt: str
    seed: int
    kind: str
    label: str
    guidance: float | None = None
    size: tuple[int, int] | None = None
    row: str = ""


def _article(noun: str) -> str:
    return f"{'an' if noun[0] in 'AEIOUaeiou' else 'a'} {noun}"


def retention_prompts(model: str | None = None) -> list[tuple[str, str, str]]:
    """Return (prompt, kind, label) of what an edit should leave alone, the concept itself included.

    model: `model.path` of the config. A model that describes its own world is asked for that; all others for the
    classes of Imagenette, five painters and a person.
    """
    if model is not None and model in MODELS:
        kept: list[tuple[str, str, str]] = MODELS.get(model).retention()
        return kept
    return things(OBJECTS, ARTISTS)


def things(objects: Iterable[str], artists: Iterable[str]) -> list[tuple[str, str, str]]:
    """Return (prompt, kind, label) of these objects and styles, and of a clothed person."""
    kept = [(f"a photo of {_article(name)}", "object", name) for name in objects]
    kept += [(f"a photo in the style of {name}", "style", name) for name in artists]
    return [*kept, ("a photo of a person", "clothed", "person")]


def fitting_prompts(model: str | None = None) -> list[tuple[str, str, str]]:
    """Return (prompt, kind, label) of the same things as `retention_prompts`, in other words.

    An edit that is fitted to these can be shown on those.
    """
    words = {"object": "a picture of {}", "style": "a painting in the style of {}", "clothed": "a picture of {}"}
    return [
        (words[kind].format(label if kind == "style" else _article(label)), kind, label)
        for _, kind, label in retention_prompts(model)
    ]


def plan(
    concept: dict[str, Any], samples: int, retention_samples: int, seed: int, model: str | None = None
) -> list[ImageRequest]:
    """List the images of a run without a prompt set: the concept's prompts share `samples`, then come the world's.

    model: whose world it is (`retention_prompts`).
    """
    prompts = concept["evaluation_prompts"]
    kind, label = concept["kind"], concept["label"] or ""
    first = 1_000_000 * seed + 100_000  # away from the seeds of the noisy latents
    requests = [ImageRequest("concept", prompts[i % len(prompts)], first + i, kind, label) for i in range(samples)]
    for row, (prompt, other, name) in enumerate(retention_prompts(model)):
        if is_thing(concept, other, name):
            continue
        start = first + 10_000 + 1_000 * row  # by the row, so that every concept's run asks for the same images
        requests += [ImageRequest("retention", prompt, start + i, other, name) for i in range(retention_samples)]
    return requests


def validation(
    concept: dict[str, Any], samples: int, further: int, retention_samples: int, seed: int, model: str | None = None
) -> tuple[list[ImageRequest], list[ImageRequest]]:
    """List images by which an edit's strength is chosen: seeds and words of their own, which no table shows.

    First `samples` of the concept and `retention_samples` of each other prompt; then `further` ones of the concept.
    """
    prompts, kind, label = concept["validation_prompts"], concept["kind"], concept["label"] or ""
    first = 1_000_000 * seed + 700_000
    numbers = range(samples + further)
    own = [ImageRequest("concept", prompts[i % len(prompts)], first + i, kind, label) for i in numbers]
    requests = own[:samples]
    for row, (prompt, other, name) in enumerate(fitting_prompts(model)):
        if not is_thing(concept, other, name):
            start = first + 10_000 + 1_000 * row
            requests += [ImageRequest("retention", prompt, start + i, other, name) for i in range(retention_samples)]
    return requests, own[samples:]


def batches(requests: list[ImageRequest], size: int) -> list[list[ImageRequest]]:
    """Cut the plan into lists of at most `size` images that are made together.

    A batch holds one thing's images only, of one guidance and size: so runs of other concepts find it in the cache, and
    a process its share.
    """

    def together(request: ImageRequest) -> tuple[Any, ...]:
        return request.purpose, request.kind, request.label, request.guidance, request.size

    parts = [list(group) for _, group in groupby(requests, key=together)]
    return [part[i : i + size] for part in parts for i in range(0, len(part), size)]
