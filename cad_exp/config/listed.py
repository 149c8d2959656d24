"""A single value given for a list is a list of one, never a list of its letters. No torch."""

from __future__ import annotations

import math
from typing import Any

from cad_exp.utils.errors import UserError

TEXTS, NUMBERS, WHOLE = "texts", "numbers", "whole numbers"


def as_list(value: object, kind: str, key: str) -> list[Any]:
    """Return a value as a list of texts or numbers; null is an empty one. UserError with the key for anything else."""
    if value is None:
        return []
    items = value if isinstance(value, (list, tuple)) else [value]
    return [_item(item, kind, key) for item in items]


def _item(item: Any, kind: str, key: str) -> Any:
    number = isinstance(item, int) or (isinstance(item, float) and math.isfinite(item))
    number = number and not isinstance(item, bool)
    if kind == TEXTS and (number or isinstance(item, str)):
        return str(item)
    if kind != TEXTS and number and (kind == NUMBERS or item == int(item)):
        return item
    hint = " (a text in quotes)" if kind == TEXTS else ""
    raise UserError(f"{key} is a list of {kind}{hint}: it cannot hold {shown(item)}")


def shown(item: object) -> str:
    """Return a value as a sentence shows it: short, and on one line."""
    if item is None or isinstance(item, bool):
        return "null" if item is None else str(item).lower()
    text = str(item)[:60]
    text = text if text.isprintable() else ascii(text)[1:-1]
    if isinstance(item, (dict, list, tuple)):
        return f"a {'mapping' if isinstance(item, dict) else 'list'} ({text})"
    return f"'{text}'"
