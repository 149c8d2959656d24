"""What a picture of an analysis shows, without how it is drawn: `reporting.figures.analysis` draws it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Matrix:
    """A table of numbers as colours.

    values: (rows, columns); NaN is left white. signed: whether 0 is the middle of the colours. note: a line below.
    """

    title: str
    rows: Sequence[str]
    columns: Sequence[str]
    values: np.ndarray
    signed: bool = False
    note: str = ""


@dataclass(frozen=True)
class Lines:
    """Numbers over an axis, a line for each series.

    x: (points,) numbers or words. values, low, high: (series, points); low and high may be NaN.
    """

    title: str
    x_name: str
    x: Sequence[Any]
    series: Sequence[str]
    values: np.ndarray
    low: np.ndarray
    high: np.ndarray
    note: str = ""


@dataclass(frozen=True)
class Bars:
    """Numbers with intervals, one a row; chance: a line that they must pass, or None."""

    title: str
    rows: Sequence[str]
    values: np.ndarray
    low: np.ndarray
    high: np.ndarray
    chance: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Pictures:
    """Images in a grid: uint8 (rows, columns, H, W, 3), with names of rows and columns."""

    title: str
    rows: Sequence[str]
    columns: Sequence[str]
    images: np.ndarray
    note: str = ""


View = Matrix | Lines | Bars | Pictures
KINDS: Mapping[str, type[View]] = {kind.__name__: kind for kind in (Matrix, Lines, Bars, Pictures)}


def save(views: Sequence[View], path: Path) -> list[dict[str, Any]]:
    """Write the arrays of views as one .npz; return all else as JSON-able content."""
    arrays, told = dict[str, np.ndarray](), list[dict[str, Any]]()
    for number, view in enumerate(views):
        own: dict[str, Any] = {"kind": type(view).__name__}
        for each in fields(view):
            value = getattr(view, each.name)
            if isinstance(value, np.ndarray):
                arrays[f"{number}.{each.name}"] = value
            else:
                own[each.name] = value if isinstance(value, (str, float, int, bool, type(None))) else list(value)
        told.append(own)
    with path.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]  # numpy's own annotation takes a bool for any name
    return told


def load(told: Sequence[dict[str, Any]], path: Path) -> list[View]:
    """Return the views that were saved."""
    with np.load(path, allow_pickle=False) as arrays:
        found = {name: arrays[name] for name in arrays.files}
    views = []
    for number, own in enumerate(told):
        head = f"{number}."
        mine = {name.removeprefix(head): each for name, each in found.items() if name.startswith(head)}
        views.append(KINDS[own["kind"]](**{key: each for key, each in own.items() if key != "kind"}, **mine))
    return views
