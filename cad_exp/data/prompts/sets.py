"""A prompt set as its config says: read or generated, then filtered; whatever is left out is said, with the reason."""

from __future__ import annotations

from collections.abc import Sized
from typing import Any

from cad_exp.config.listed import TEXTS, as_list
from cad_exp.config.safety import policy
from cad_exp.config.safety.reading import words
from cad_exp.data.prompts.parquet import Cell
from cad_exp.data.prompts.rows import SEEDS, Row, convert, named
from cad_exp.data.prompts.sources import locate
from cad_exp.data.prompts.table import Faults, Record, read
from cad_exp.data.prompts.templates import generate
from cad_exp.utils import console
from cad_exp.utils.errors import UserError, choose

Settings = dict[str, Any]
DUPLICATES = ("drop", "keep", "error")
LEAST = {"offset": 0, "limit": 1, "per_label": 1, "per_prompt": 1}
REQUIRED = ("per_prompt",)


def load(settings: Settings, concept: Settings, group: str = "prompts") -> list[Row]:
    """Return the rows of a prompt set that a run uses, in the order of the set; at least one.

    settings: of an option of the config group `prompts` that is a set. group: under which name the user gave it.
    Rows with an empty prompt and rows that ask for another row's image are left out; where images of nudity are made,
    those that may ask for a child too. UserError for a file that is missing or malformed, and where no row is left.
    """
    settings, left = _checked(settings, group), _LeftOut()
    if "columns" in settings:
        rows, cells, source = _from_file(settings, group, left)
        number = len(cells)
    else:
        rows, cells, source = generate(settings, concept), {}, settings["name"]
        number = len(rows)
    kept = _cut(_drawable(_wanted(rows, cells, settings), settings, concept, left), settings)
    if not kept:
        reasons = left.said(" (", ")")
        raise UserError(
            f"no row of the {number:,} in '{source}' is left{reasons}: see {group}.where, .offset, .without"
        )
    if len(kept) < number:
        console.say(f"  {settings['name']}: {len(kept):,} of {number:,} rows{left.said('; left out: ')}")
    return kept


class _LeftOut:
    """How many rows of a set are left out, and why."""

    def __init__(self) -> None:
        self.reasons: list[str] = []

    def out(self, reason: str, before: Sized, kept: list[Row]) -> list[Row]:
        """`kept`, after noting how many of `before` it lacks."""
        if lacking := len(before) - len(kept):
            self.reasons.append(f"{lacking:,} that {reason}")
        return kept

    def said(self, before: str, after: str = "") -> str:
        return f"{before}{', '.join(self.reasons)}{after}" if self.reasons else ""


def _drawable(rows: list[Row], settings: Settings, concept: Settings, left: _LeftOut) -> list[Row]:
    """Rows that may be drawn and hold no word of `without`."""
    allowed = policy.allowed(concept, settings)
    rows = left.out("may ask for a child", rows, [row for row in rows if allowed(row.prompt)])
    wanted = [row for row in rows if not policy.holds(row.prompt, settings["without"])]
    return left.out("hold a word of `without`", rows, wanted)


def _from_file(settings: Settings, group: str, left: _LeftOut) -> tuple[list[Row], dict[int, Record], str]:
    """Return the rows of a set's file without those that ask for nothing or for another's image.

    Also returns all records by number.
    """
    file, wanted = locate(settings, group), settings["where"]
    columns = set(named(settings, group).values())
    header, records = read(file, settings["encoding"], columns | set(wanted), set(wanted) - columns, group)
    for column in wanted:
        choose(column, header, f"column (of {group}.where) in '{file}'")
    rows = left.out("have no prompt", records, convert(header, records, settings, str(file), group))
    if settings["duplicates"] != "keep":
        rows = left.out("ask for an image that another row asks for", rows, _single(rows, str(file), settings, group))
    return rows, {record.number: record for record in records}, str(file)


def _checked(settings: Settings, group: str) -> Settings:
    """Return the settings with their lists as lists. UserError with key, value and what is allowed."""
    settings = dict(settings)
    choose(settings.get("duplicates", "drop"), DUPLICATES, f"{group}.duplicates")
    for key, least in LEAST.items():
        value = settings[key]
        if value is None and key not in REQUIRED:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise UserError(f"{group}.{key} must be a whole number of at least {least}, not {_shown(value)}")
    seed = settings.get("public_seed")
    if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < SEEDS):
        raise UserError(
            f"{group}.public_seed must be null or a whole number from 0 and below {SEEDS}, not {_shown(seed)}"
        )
    settings["without"] = as_list(settings.get("without"), TEXTS, f"{group}.without")
    for word in settings["without"]:
        if not words(word):
            raise UserError(f"{group}.without holds {_shown(word)}, which has no letter or digit: leave it out")
    where = settings.get("where") or {}
    if not isinstance(where, dict):
        raise UserError(
            f"{group}.where must name a column and its values, as in {{categories: sexual}}, not {_shown(where)}"
        )
    settings["where"] = {str(column): _values(value, f"{group}.where.{column}") for column, value in where.items()}
    return settings


def _shown(value: Any) -> str:
    return f"'{value}'" if isinstance(value, str) else "null" if value is None else str(value)


def _values(value: Any, key: str) -> list[Any]:
    """Return what a cell may be: one value or several."""
    values = value if isinstance(value, list) else [value]
    if any(isinstance(item, (dict, list)) for item in values):
        raise UserError(f"{key} must be one value or a list of values, not {_shown(value)}")
    return values


def _wanted(rows: list[Row], cells: dict[int, Record], settings: Settings) -> list[Row]:
    """Rows that `where` asks for."""

    def fits(row: Row) -> bool:
        return all(_holds(cells[row.number].cells[column], asked) for column, asked in settings["where"].items())

    return [row for row in rows if fits(row)] if cells else rows


def _holds(cell: Cell, values: list[Any]) -> bool:
    """Whether a cell is one of the values, or lists one of them (I2P's categories: "hate, sexual")."""
    items = cell if isinstance(cell, tuple) else (cell, *(item.strip() for item in cell.split(",")))
    return any(_equal(item, value) for item in items for value in values)


def _equal(text: str, value: Any) -> bool:
    """Whether a cell says a value: 7.0 is 7, `True` is true, an empty cell is null."""
    if value is None:
        return text == ""
    if isinstance(value, bool):
        return text.casefold() == str(value).casefold()
    if isinstance(value, (int, float)):
        try:
            return float(text) == value
        except ValueError:
            return False
    return text == str(value)


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


def _single(rows: list[Row], source: str, settings: Settings, group: str) -> list[Row]:
    """Return the first of all rows that ask for one image, which would count it twice.

    UserError where they are refused.
    """
    faults, kept = Faults(source), []
    first: dict[tuple[Any, ...], str] = {}
    for row in rows:
        key = (row.prompt, row.seed, row.guidance, row.size)
        if row.seed is None or first.setdefault(key, row.where) == row.where:
            kept.append(row)
        else:
            faults.add(row.where, f"the image of {first[key]} again; {group}.duplicates=drop counts it once")
    if settings["duplicates"] == "error":
        faults.refuse()
    return kept
