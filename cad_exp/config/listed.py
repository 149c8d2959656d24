"""Settings that are lists: a single value given for one is a list of one, never a list of its letters. No torch."""

from __future__ import annotations

import math
from typing import Any

from cad_exp.utils.errors import UserError

Config = dict[str, Any]
TEXTS, NUMBERS, WHOLE = "texts", "numbers", "whole numbers"
SET = {"labels": TEXTS, "without": TEXTS}  # of a prompt set from a file
TEMPLATES = dict.fromkeys(("groups", "templates", "objects", "artists", "subjects", "persons"), TEXTS)
# Dotted keys of a config that hold a list, and of what. `model.erased` may be a mapping: what it was settled to.
LISTS = {
    "concept.evaluation_prompts": TEXTS,
    "edit.preserve": TEXTS,
    "estimator.rates": NUMBERS,
    "evaluation.metrics": TEXTS,
    "evaluation.fidelity.rates": NUMBERS,
    "evaluation.fidelity.kinds": TEXTS,
    "evaluation.fidelity.growth": WHOLE,
    "evaluation.fidelity.sanity": TEXTS,
    "evaluation.fidelity.fractions": NUMBERS,
    "evaluation.fidelity.images.kinds": TEXTS,
    "evaluation.fidelity.images.fractions": NUMBERS,
    "granularity.kinds": TEXTS,
    "judge.parts": TEXTS,
    "judge.nudenet.thresholds": NUMBERS,
    "model.edits": TEXTS,
    "model.erased": TEXTS,
    "objective.retain": TEXTS,
    "tracking.tags": TEXTS,
    **{f"{group}.{key}": kind for group in ("prompts", "others") for key, kind in (SET | TEMPLATES).items()},
}
OPEN = ("granularity.kinds", "model.erased", "prompts.labels", "others.labels")  # null says something else than []


def settle(config: Config) -> None:
    """Make every list of a composed config one, in place. UserError with the key of what cannot be a list."""
    for key, kind in LISTS.items():
        *groups, last = key.split(".")
        place: Any = config
        for group in groups:
            if not isinstance(place.get(group), dict):
                break
            place[group] = place = dict(place[group])  # a copy: the groups within groups are the caller's own
        else:
            if last in place:
                place[last] = _settled(place[last], kind, key)


def as_list(value: Any, kind: str, key: str) -> list[Any]:
    """A value as a list of texts or numbers; null is an empty one. UserError with the key for anything else."""
    if value is None:
        return []
    items = value if isinstance(value, (list, tuple)) else [value]
    return [_item(item, kind, key) for item in items]


def _settled(value: Any, kind: str, key: str) -> Any:
    if key in OPEN and value is None or key == "model.erased" and isinstance(value, dict):
        return value
    return as_list(value, kind, key)


def _item(item: Any, kind: str, key: str) -> Any:
    number = isinstance(item, (int, float)) and not isinstance(item, bool) and math.isfinite(item)
    if kind == TEXTS and (number or isinstance(item, str)):
        return str(item)
    if kind != TEXTS and number and (kind == NUMBERS or item == int(item)):
        return item
    hint = " (a text in quotes)" if kind == TEXTS else ""
    raise UserError(f"{key} is a list of {kind}{hint}: it cannot hold {_shown(item)}")


def _shown(item: Any) -> str:
    if isinstance(item, (dict, list, tuple)):
        return f"a {'mapping' if isinstance(item, dict) else 'list'} ({str(item)[:60]})"
    return "null" if item is None else f"'{str(item)[:60]}'"
