"""Which prompts and things are a concept itself, however they are written. No torch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

FRAME = frozenset("a an the photo picture painting image drawing of in style".split())  # words that name no thing


def words(text: str) -> str:
    """Return the words of a text with one space between them."""
    return " ".join(text.split())


def asks(prompt: str, concept: dict[str, Any]) -> bool:
    """Return whether a prompt is one of the concept's own, in whatever frame: "A  Church", "a drawing of a church"."""
    own = (concept["prompt"], *concept["evaluation_prompts"], *(concept.get("validation_prompts") or ()))
    return _named(prompt) in map(_named, own)


def kept(prompts: Iterable[str], concept: dict[str, Any]) -> list[str]:
    """Return those of the prompts of a contrast that do not ask for the concept, by the words of its tables.

    Whether a strength is chosen, by words of its own, is no matter of an objective.
    """
    own = {key: concept[key] for key in ("prompt", "evaluation_prompts")}
    return [prompt for prompt in prompts if not asks(prompt, own)]


def is_thing(concept: dict[str, Any], kind: str, label: str) -> bool:
    """Return whether the concept is this thing of a model's world: by kind and label, or because a prompt says so.

    A concept of one's own may have no label. Then "a photo of a golf ball" is a golf ball, and "a golfer" is not.
    """
    return (concept["kind"], concept["label"]) == (kind, label) or asks(label, concept)


def _named(prompt: str) -> list[str]:
    """Return the words of a prompt that name something; all of them where none does."""
    told = prompt.lower().split()
    return [word for word in told if word not in FRAME] or told
