"""The walk over strengths by which an edit chose its own, as a table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cad_exp.reporting.html.source import Source

HEADS = {
    "strength": "strength",
    "rate": "concept rate",
    "images": "judged images",
    "kept": "others kept",
    "left": "left at noisy latents (1 = all)",
    "moved": "others moved at noisy latents",
}


@dataclass(frozen=True)
class Walk:
    """heads: of the columns; tried: a row for each strength; chosen: the number of the one taken; why: in words.

    instead: the prompt whose images are to take the concept's place.
    """

    heads: dict[str, str]
    tried: list[dict[str, Any]]
    chosen: int | None
    why: str
    instead: str


def walk(source: Source) -> Walk | None:
    """Return the walk of the run; None for an edit that chose no strength."""
    told = source.run.get("strength")
    if not isinstance(told, dict):
        return None
    tried = told.get("tried")
    if not isinstance(tried, list) or not tried or not all(isinstance(each, dict) for each in tried):
        return None
    heads = {key: head for key, head in HEADS.items() if any(each.get(key) is not None for each in tried)}
    return Walk(heads, tried, told.get("chosen"), str(told.get("why") or ""), str(source.run.get("instead") or ""))
