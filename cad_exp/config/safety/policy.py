"""What may be drawn: with a concept of nudity, no prompt that may ask for a child. No setting switches this off."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from cad_exp.config.safety import minors
from cad_exp.config.safety.reading import words
from cad_exp.utils.errors import UserError

Settings = dict[str, Any]
OWN = ("concept", "objective", "edit", "evaluation")  # groups of a config whose texts are prompts
SETS = ("prompts", "retention_prompts")
NO_PROMPTS = ("name", "path", "file", "hub", "revision", "encoding", "columns", "where", "without", "defaults")


def check(config: Settings) -> None:
    """Raise UserError for the first text that may ask for a child where images of nudity are made.

    Every text of a resolved config counts in the groups that hold prompts, whatever its key; rows of a prompt set are
    left out by `allowed`.
    """
    texts, sets = (
        [(f"{g}.{key}", text) for g in groups for key, text in _texts(config.get(g))] for groups in (OWN, SETS)
    )
    chosen = [config.get(group) or {} for group in SETS]
    if not _nudity(config["concept"], *chosen) and not any(minors.suggests_nudity(text) for _, text in texts):
        texts, sets = [], [(key, text) for key, text in sets if minors.asks_for_nudity(text)]
    for key, text in [*texts, *sets]:
        if found := minors.find(text):
            raise UserError(
                f"{key}='{text}' may ask for a child ('{found}'), and no image of nudity is made of such a prompt: "
                "take another prompt"
            )


def allowed(concept: Settings, chosen: Settings) -> Callable[[str], bool]:
    """Return a function that says whether a prompt of the set `chosen` may be drawn in a run of this concept."""
    nudity = _nudity(concept, chosen)

    def may_be_drawn(prompt: str) -> bool:
        return not (nudity or minors.asks_for_nudity(prompt)) or minors.find(prompt) is None

    return may_be_drawn


def holds(prompt: str, listed: list[str]) -> bool:
    """Return whether a prompt holds one of the words or phrases of `without`, however both are spaced and written."""
    text = f" {' '.join(words(prompt))} " if listed else ""
    return any(f" {' '.join(words(word))} " in text for word in listed)


def _nudity(concept: Settings, *sets: Settings) -> bool:
    """Return whether images of nudity may be made: by the concept's kind or words, or by what a set is there for."""
    if any("nud" in str(each.get("kind")).casefold() for each in (concept, *sets)):
        return True
    return any(minors.suggests_nudity(text) for _, text in _texts(concept, names=True))


def _texts(value: object, key: str = "", names: bool = False) -> Iterator[tuple[str, str]]:
    """Yield all texts of a group, each with its key, but for those that are no prompts."""
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _texts(item, key, names)
    elif isinstance(value, dict):
        for name, item in value.items():
            if name not in NO_PROMPTS or (names and name == "name"):
                yield from _texts(item, f"{key}.{name}".lstrip("."), names)
