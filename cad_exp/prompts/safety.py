"""What may be drawn: with a concept of nudity, no prompt that may ask for a child. No setting switches this off."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..errors import UserError
from . import minors
from .reading import words

Settings = dict[str, Any]
OWN = ("concept", "objective", "edit", "evaluation")  # groups of a config whose texts are prompts
SETS = ("prompts", "others")
NO_PROMPTS = ("name", "path", "file", "hub", "revision", "encoding", "columns", "where", "without", "defaults")


def check(config: Settings) -> None:
    """UserError for the first text of a settled config that may ask for a child where images of nudity are made.

    Every text in the groups counts that hold prompts, whatever its key; rows of a prompt set are left out by `allowed`.
    """
    texts = [(f"{group}.{key}", text) for group in OWN for key, text in _texts(config.get(group))]
    sets = [(f"{group}.{key}", text) for group in SETS for key, text in _texts(config.get(group))]
    if not _nudity(config["concept"], *(config.get(group) or {} for group in SETS)) and not any(
        minors.asks_for_nudity(text) for _, text in texts
    ):
        sets = [(key, text) for key, text in sets if minors.asks_for_nudity(text)]
        texts = []
    for key, text in [*texts, *sets]:
        if found := minors.find(text):
            raise UserError(
                f"{key}='{text}' may ask for a child ('{found}'), and no image of nudity is made of such a prompt: "
                "take another prompt"
            )


def allowed(prompt: str, concept: Settings, chosen: Settings) -> bool:
    """Whether a row of the set `chosen` may be drawn in a run of this concept."""
    if not minors.find(prompt):
        return True
    return not (_nudity(concept, chosen) or minors.asks_for_nudity(prompt))


def holds(prompt: str, listed: list[str]) -> bool:
    """Whether a prompt holds one of the words or phrases of `without`, however both are spaced and written."""
    text = f" {' '.join(words(prompt))} "
    return any(f" {' '.join(words(word))} " in text for word in listed)


def _nudity(concept: Settings, *sets: Settings) -> bool:
    """Whether images of nudity may be made: by the concept's kind or its words, or by what a set is there for."""
    if any("nud" in str(each.get("kind")).casefold() for each in (concept, *sets)):
        return True
    return any(minors.asks_for_nudity(text) for _, text in _texts(concept, names=True))


def _texts(value: Any, key: str = "", names: bool = False) -> Iterator[tuple[str, str]]:
    """All texts of a group, each with its key, but for those that are no prompts."""
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _texts(item, key, names)
    elif isinstance(value, dict):
        for name, item in value.items():
            if name not in NO_PROMPTS or (names and name == "name"):
                yield from _texts(item, f"{key}.{name}".lstrip("."), names)
