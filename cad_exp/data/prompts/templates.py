"""Prompt sets that need no file: objects x templates, artists x subjects, persons."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cad_exp.data.prompts.rows import Row
from cad_exp.utils.errors import UserError, choose


def generate(settings: dict[str, Any], concept: dict[str, Any]) -> list[Row]:
    """All rows in a fixed order. What the concept adds comes last: so concepts have all other rows in common.

    That is its label where the lists lack it, and, for nudity alone, naked persons. settings: of `prompts=templates`.
    Seeds are left open: the plan draws them. UserError for an unknown group, and for a template without its {}.
    """
    found: list[tuple[str, str, str, str]] = []
    for group in settings["groups"]:
        rows = GENERATORS[choose(group, GENERATORS, "group of templates")](settings)
        found += [(f"{group}-{number}", *row) for number, row in enumerate(rows)]
    kind, label = concept["kind"], concept["label"] or ""
    if label and not any(row[2:] == (kind, label) for row in found):
        found += [(f"concept-{number}", *row) for number, row in enumerate(_own(settings, kind, label))]
    return [Row(n, name, name, prompt, kind, label) for n, (name, prompt, kind, label) in enumerate(found)]


Generated = Iterator[tuple[str, str, str]]  # prompt, kind, label


def _objects(settings: dict[str, Any]) -> Generated:
    for noun in settings["objects"]:
        yield from ((fill(template, noun), "object", noun) for template in settings["templates"])


def _artists(settings: dict[str, Any]) -> Generated:
    for artist in settings["artists"]:
        for subject in settings["subjects"]:
            yield f"{fill('a {}', subject)} in the style of {artist}", "style", artist


def _persons(settings: dict[str, Any]) -> Generated:
    for person in settings["persons"]:
        yield from ((fill(template, person), "clothed", "person") for template in settings["templates"])


GENERATORS = {"objects": _objects, "artists": _artists, "persons": _persons}


def _own(settings: dict[str, Any], kind: str, label: str) -> Generated:
    """Prompts for a concept that the lists lack."""
    if kind == "object":
        yield from _objects(settings | {"objects": [label]})
    elif kind == "style":
        yield from _artists(settings | {"artists": [label]})
    elif kind == "nudity":
        naked = _persons(settings | {"persons": [f"naked {person}" for person in settings["persons"]]})
        yield from ((prompt, kind, label) for prompt, _, _ in naked)


def fill(template: str, noun: str) -> str:
    """Put a noun into `a photo of a {}`, with "an" before a vowel."""
    if template.count("{}") != 1:
        raise UserError(f"the template '{template}' must hold one {{}}, where the noun goes")
    vowel = noun[:1] in tuple("AEIOUaeiou") and (template.startswith("a {}") or " a {}" in template)
    return (template.replace("a {}", "an {}") if vowel else template).replace("{}", noun)
