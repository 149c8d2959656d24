"""A prompt set as its config says: read or generated, then filtered; what is left out is said, duplicates refused."""

from __future__ import annotations

import re
from typing import Any

from .. import terminal
from ..errors import UserError, choose
from ..prompt_files import locate
from .rows import Row, convert
from .table import Faults, Record, read
from .templates import generate

Settings = dict[str, Any]


def load(settings: Settings, concept: Settings, group: str = "prompts") -> list[Row]:
    """The rows of a prompt set that a run uses, in the order of the set; at least one.

    settings: of an option of the config group `prompts` that is a set. group: under which name the user gave it.
    UserError for a file that is missing or malformed, for duplicates, and where no row is left.
    """
    _check(settings, group)
    if "columns" not in settings:
        rows, source = generate(settings, concept), settings["name"]
        cells = {}
    else:
        file = locate(settings, group)
        header, records = read(file, settings["encoding"])
        rows, source = convert(header, records, settings, str(file)), str(file)
        cells = {record.number: record for record in records}
        for column in settings["where"] or {}:
            choose(column, header, f"column (of {group}.where) in '{file}'")
    kept = _cut(_filtered(rows, cells, settings), settings)
    if not kept:
        raise UserError(f"no row of the {len(rows)} in '{source}' is left: see {group}.where, .offset, .without")
    if len(kept) < len(rows):
        terminal.say(f"  {settings['name']}: {len(kept)} of {len(rows)} rows")
    if settings.get("duplicates") == "error":
        _refuse_duplicates(kept, source, group)
    return kept


def _check(settings: Settings, group: str) -> None:
    choose(settings.get("duplicates", "error"), ("error", "keep"), f"{group}.duplicates")
    for key, least in (("offset", 0), ("limit", 1), ("per_label", 1), ("per_prompt", 1)):
        value = settings[key]
        if value is not None and value < least:
            raise UserError(f"{group}.{key} must be at least {least}, not {value}")


def _filtered(rows: list[Row], cells: dict[int, Record], settings: Settings) -> list[Row]:
    """Rows that `where` asks for and whose prompts hold none of the words of `without`."""
    wanted = {column: _listed(value) for column, value in (settings.get("where") or {}).items()}
    rows = [row for row in rows if all(_holds(cells[row.number].cells[c], values) for c, values in wanted.items())]
    words = settings.get("without") or []
    if not words:
        return rows
    unwanted = re.compile(r"\b(?:" + "|".join(map(re.escape, words)) + r")\b", re.IGNORECASE)
    kept = [row for row in rows if not unwanted.search(row.prompt)]
    if len(kept) < len(rows):
        terminal.say(f"  {settings['name']}: {len(rows) - len(kept)} rows left out for a word of `without`")
    return kept


def _listed(value: Any) -> list[str]:
    return [str(item) for item in (value if isinstance(value, list) else [value])]


def _holds(cell: str, values: list[str]) -> bool:
    """Whether a cell is one of the values, or lists one of them (I2P's categories: "hate, sexual")."""
    return cell in values or any(item.strip() in values for item in cell.split(","))


def _cut(rows: list[Row], settings: Settings) -> list[Row]:
    """First `per_label` rows of every label, then `limit` of those from `offset` on."""
    if settings["per_label"]:
        seen: dict[tuple[str, str], int] = {}
        kept = []
        for row in rows:
            seen[row.kind, row.label] = seen.get((row.kind, row.label), 0) + 1
            if seen[row.kind, row.label] <= settings["per_label"]:
                kept.append(row)
        rows = kept
    start = settings["offset"] or 0
    return rows[start : start + settings["limit"] if settings["limit"] else None]


def _refuse_duplicates(rows: list[Row], source: str, group: str) -> None:
    """Two rows that ask for one image would count it twice."""
    faults, first = Faults(source), {}
    for row in rows:
        key = (row.prompt, row.seed, row.guidance, row.size)
        if row.seed is not None and key in first:
            faults.add(row.where, f"the image of {first[key]} again; {group}.duplicates=keep counts both")
        first.setdefault(key, row.where)
    faults.refuse()
