"""How far scores predict ablations: one mark for each set of components that was switched off.

Beside the sums of the scores stand predictions that count interactions too, where the run made them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from cad_exp.reporting.html.source import Source

WIDTH, HEIGHT = 440, 330  # pixels of a panel
LEFT, RIGHT, TOP, BOTTOM = 58, 12, 12, 46
MOST = 500  # marks of one panel and rate
TICKS = 4
SHAPES = ("circle", "triangle", "square", "diamond", "cross")
SUMS, SECOND = "predicted", "second"  # columns of predictions: sums of scores, and with interactions counted
NAMES = {SUMS: "sums of scores", SECOND: "with interactions counted"}
KINDS = {"uniform": "random components", "top": "random ones among the top-scored", "single": "one at a time"}


@dataclass(frozen=True)
class Series:
    """All marks of one rate. look: number of its colour and shape; r: correlation of predicted and true effects."""

    rate: str
    shape: str
    look: int
    points: list[tuple[float, float]]
    r: float | None


@dataclass(frozen=True)
class Panel:
    """One kind of ablation. line: from where to where every prediction is true; ticks: (pixel, words).

    name: of its predictions.
    """

    title: str
    name: str
    series: list[Series]
    line: tuple[float, float, float, float]
    across: list[tuple[float, str]]
    up: list[tuple[float, str]]
    count: int


def fidelity(source: Source) -> list[list[Panel]] | None:
    """Return for each kind of ablation a panel of each prediction, side by side; None where no ablations were made."""
    table = source.table("fidelity.parquet")
    if table is None:
        return None
    rows = table[table["study"] == "ablations"]
    rows = rows[rows["measure"] == "J"] if "measure" in rows else rows
    kinds = list(rows["kind"].dropna().unique())
    return [_panels(str(kind), rows[rows["kind"] == kind]) for kind in kinds] or None


def _panels(kind: str, rows: pd.DataFrame) -> list[Panel]:
    """Return a panel of each prediction that was made of these ablations."""
    found = {by: rows[rows[by].notna()] for by in (SUMS, SECOND) if by in rows}
    return [_panel(kind, by, own) for by, own in found.items() if len(own)]


def _panel(kind: str, by: str, rows: pd.DataFrame) -> Panel:
    rows = rows.assign(predicted=rows[by])
    x, y = (_axis(rows[side].to_numpy(dtype=float)) for side in ("predicted", "true"))
    series = [
        _series(number, float(rate), rows[rows["rate"] == rate], x, y)
        for number, rate in enumerate(sorted(rows["rate"].unique()))
    ]
    low, high = max(x[0], y[0]), min(x[1], y[1])
    line = (_across(low, x), _up(low, y), _across(high, x), _up(high, y))
    across = [(_across(at, x), f"{at:.3g}".replace("-", "−")) for at in _ticks(x)]
    up = [(_up(at, y), f"{at:.3g}".replace("-", "−")) for at in _ticks(y)]
    return Panel(KINDS.get(kind, kind), NAMES[by], series, line, across, up, len(rows))


def _series(number: int, rate: float, rows: pd.DataFrame, x: tuple[float, float], y: tuple[float, float]) -> Series:
    predicted, true = (rows[side].to_numpy(dtype=float) for side in ("predicted", "true"))
    varied = len(rows) > 2 and predicted.std() > 0 and true.std() > 0
    r = float(np.corrcoef(predicted, true)[0, 1]) if varied else None
    points = [(_across(a, x), _up(b, y)) for a, b in zip(predicted[:MOST], true[:MOST], strict=True)]
    return Series(f"{100 * rate:.3g} %", SHAPES[number % len(SHAPES)], number % 7, points, r)


def _axis(values: np.ndarray) -> tuple[float, float]:
    """Return the ends of an axis that shows all values and 0."""
    low, high = min(0.0, float(values.min())), max(0.0, float(values.max()))
    room = 0.05 * ((high - low) or 1.0)
    return low - room, high + room


def _ticks(axis: tuple[float, float]) -> list[float]:
    """Return a few round numbers on an axis."""
    raw = (axis[1] - axis[0]) / TICKS
    size = 10.0 ** np.floor(np.log10(raw))
    step = next(float(each * size) for each in (1, 2, 5, 10) if each * size >= raw)
    first = int(np.ceil(axis[0] / step))
    return [round(step * k, 12) for k in range(first, int(np.floor(axis[1] / step)) + 1)]


def _across(value: float, axis: tuple[float, float]) -> float:
    return round(LEFT + (WIDTH - LEFT - RIGHT) * (value - axis[0]) / (axis[1] - axis[0]), 1)


def _up(value: float, axis: tuple[float, float]) -> float:
    return round(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (value - axis[0]) / (axis[1] - axis[0]), 1)
