"""Rows of a prompt set: records turned into prompts, seeds, guidance, sizes and labels, or into a list of faults."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from cad_exp.data.prompts.parquet import Cell
from cad_exp.data.prompts.table import Faults, Record
from cad_exp.utils.errors import UserError, choose

SEEDS = 2**32  # seeds of a file are below it: what Stable Diffusion's tools write
FIELDS = ("prompt", "seed", "guidance", "width", "height", "label", "id")


@dataclass(frozen=True)
class Row:
    """A prompt, what its image should show (kind and label, "" for none), and how its file wants the image made.

    number: of the row in its set, from 0. size: (height, width) in pixels. None where the set leaves it open.
    """

    number: int
    id: str
    where: str
    prompt: str
    kind: str
    label: str
    seed: int | None = None
    guidance: float | None = None
    size: tuple[int, int] | None = None


def convert(header: list[str], records: list[Record], settings: dict[str, Any], file: str, group: str) -> list[Row]:
    """All records as rows, but for those without a prompt.

    UserError for a column that is not there, and for malformed records, all told at once. group: of the config.
    """
    columns = named(settings, group)
    for name, column in columns.items():
        choose(column, header, f"column (of {group}.columns.{name}) in '{file}'")
    faults, rows = Faults(file), []
    first: dict[str, str] = {}
    for record in records:
        cells = {name: _text(record.cells[column]) for name, column in columns.items()}
        if not any(unicodedata.category(char)[0] not in "ZC" for char in cells["prompt"]):
            continue  # nothing to see in it: an empty prompt asks for nothing
        row = _row(record, cells, settings, partial(faults.add, record.where))
        if row and row.id in first:
            faults.add(record.where, f"the id '{row.id}' stands on {first[row.id]} too")
        elif row:
            first[row.id] = record.where
            rows.append(row)
    faults.refuse()
    return rows


def _text(cell: Cell) -> str:
    return cell if isinstance(cell, str) else ", ".join(cell)


def named(settings: dict[str, Any], group: str) -> dict[str, str]:
    """Return the columns that a set's file must have, by what they hold. UserError for what `columns` cannot say."""
    if not isinstance(settings["columns"], dict):
        raise UserError(f"{group}.columns must name columns, as in {{prompt: text, seed: null}}")
    columns = {name: str(column) for name, column in settings["columns"].items() if column is not None}
    for name in columns:
        choose(name, FIELDS, f"key of {group}.columns")
    if "prompt" not in columns or ("width" in columns) != ("height" in columns):
        raise UserError(f"{group}.columns must name the prompt's column, and width and height both or neither")
    return columns


def _row(record: Record, cells: dict[str, str], settings: dict[str, Any], fault: Callable[[str], None]) -> Row | None:
    """One row; None if anything is wrong with it, each of which is told to `fault`."""
    wrong: list[str] = []
    values = {name: _number(name, cells[name], wrong) for name in cells if name in ("seed", "guidance")}
    size = tuple(_number(name, cells[name], wrong) for name in ("height", "width")) if "width" in cells else None
    label, labels = cells.get("label", ""), settings["labels"]
    if "label" in cells and labels is not None and label not in labels:
        try:
            choose(label, labels, "label")
        except UserError as error:
            wrong.append(str(error))
    if cells.get("id", "-") == "":
        wrong.append("the id is empty")
    for reason in wrong:
        fault(reason)
    if wrong:
        return None
    name = cells.get("id", str(record.number))
    return Row(record.number, name, record.where, cells["prompt"], settings["kind"], label, **values, size=size)


def _number(name: str, text: str, wrong: list[str]) -> Any:
    """Return a seed (integer), guidance (float >= 0), width or height (multiples of 8 pixels).

    Else a reason joins `wrong`.
    """
    shown = " ".join(text.split())
    shown = shown if len(shown) <= 40 else f"{shown[:40]}..."
    if name == "guidance":
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and value >= 0):
            wrong.append(f"guidance '{shown}' is not a number from 0 upwards")
        return value
    whole = re.fullmatch(r"([0-9]+)(?:\.0*)?", text.strip())  # 7.0 too: so are columns with gaps written
    if not whole:
        wrong.append(f"{name} '{shown}' is not an integer")
        return None
    digits = whole[1].lstrip("0") or "0"
    value = int(digits) if len(digits) <= len(str(SEEDS)) else SEEDS  # int() refuses thousands of digits
    if name == "seed" and value >= SEEDS:
        wrong.append(f"seed {shown} is not below {SEEDS}")
    if name != "seed" and (value == 0 or value % 8 or value >= SEEDS):
        wrong.append(f"{name} {shown} is not a multiple of 8 pixels")
    return value
