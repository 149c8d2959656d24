"""Metrics with change, interval and n, and what each of them means."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from cad_exp.evaluation.variants import VARIANTS
from cad_exp.reporting.html.source import Metric, Source
from cad_exp.reporting.wording import drawn_instead, of_scores, predicted, warnings_of

MOST = 80  # rows of a table; results.json has them all
LONG = 400  # characters of one line of a definition
PLOT = (150, 34)  # pixels of a drawing of three intervals


@dataclass(frozen=True)
class Mark:
    """A value and its interval in a drawing, in pixels."""

    variant: str
    x: float
    low: float
    high: float
    y: float


@dataclass(frozen=True)
class Row:
    """One metric. cells: variant -> metric; arrow: the wanted direction; marks: of the drawing."""

    name: str
    arrow: str
    cells: dict[str, Metric]
    change: dict[str, Any] | None
    n: str
    marks: list[Mark]
    ends: tuple[float, float]
    definition: dict[str, str]


@dataclass(frozen=True)
class Table:
    """Rows whose cells stand under the same variants. kind: images, scores or beside; more: rows that are left out."""

    title: str
    kind: str
    variants: list[str]
    rows: list[Row]
    notes: list[str]
    folded: bool = False
    more: int = 0


def metrics(source: Source) -> list[Table] | None:
    """Return the tables of a run's metrics; None where it has none."""
    every = source.metrics
    images = [each for each in every if each["variant"] in VARIANTS]
    scores = [each for each in every if each["variant"] == "attribution"]
    tests = [relative(each) for each in scores if predicted(each["name"])]
    beside = [each for each in every if each["variant"] not in (*VARIANTS, "attribution")]
    plain = [each for each in images if "@" not in each["name"]]
    notes = [*explained({each["name"] for each in plain}), *warnings_of(plain)]
    if instead := drawn_instead(every):
        notes = [f"Drawn by the edited model where the concept was asked for: {instead}.", *notes]
    found = [
        _table("What the images show", "images", plain, notes),
        _table(
            "How far the scores can be trusted", "scores", [each for each in scores if not predicted(each["name"])], []
        ),
        _table("How right predicted effects are", "scores", tests, [], True),
        _table("What was measured, beside its controls", "beside", _main(beside), warnings_of(_main(beside))),
        _table("Single labels and thresholds", "images", [each for each in images if "@" in each["name"]], [], True),
    ]
    return [table for table in found if table.rows] or None


def relative(metric: Metric) -> Metric:
    """Return a bias as a share of the mean true change, with its interval on the same scale; others as they are.

    A bias has the unit of J, in which nobody knows what is much.
    """
    share, value = metric["definition"].get("relative"), metric["value"]
    if "_bias" not in metric["name"] or not value or not isinstance(share, (int, float)):
        return metric
    low, high = (None if metric[end] is None else metric[end] * share / value for end in ("low", "high"))
    return metric | {"value": share, "low": low, "high": high, "relative": True}


def explained(names: set[str]) -> list[str]:
    """Say in plain words what distances are, and what lies outside the world, where the table has such rows."""
    found = []
    if any(name.startswith("perceptual_distance") for name in names):
        scale = " The row “distance, other seed” is the scale." if "perceptual_distance_other_seed" in names else ""
        found.append(f"Distance: how far an image moved from the unedited one.{scale}")
    if any(name.startswith("outside_world") for name in names):
        found.append("Outside the world: the image resembles nothing the judge knows.")
    return found


def _main(beside: list[Metric]) -> list[Metric]:
    """Leave single timesteps to results.json where a metric is told without them too: they are hundreds."""
    short = [each for each in beside if each["name"].count("@") < 2]
    return short or beside


def _table(title: str, kind: str, every: list[Metric], notes: list[str], folded: bool = False) -> Table:
    names = list(dict.fromkeys(each["name"] for each in every))
    there = list(dict.fromkeys(each["variant"] for each in every))
    variants = [name for name in VARIANTS if name in there] if kind == "images" else there
    rows = [_row([each for each in every if each["name"] == name], variants) for name in names[:MOST]]
    return Table(title, kind, variants, rows, notes, folded, max(0, len(names) - MOST))


def _row(own: list[Metric], variants: list[str]) -> Row:
    cells, first = {each["variant"]: each for each in own}, own[0]
    sizes = sorted({each["n"] for each in own if each["n"] is not None})
    n = f"{sizes[0]}–{sizes[-1]}" if len(sizes) > 2 else "/".join(map(str, sizes))
    arrow = {None: "", True: "higher is better", False: "lower is better"}[first["higher_is_better"]]
    change = cells.get("edited", {}).get("changes", {}).get("unedited")
    marks, ends = _drawing(cells, variants)
    return Row(
        of_scores(first["name"], first.get("relative", False)), arrow, cells, change, n, marks, ends, definition(own)
    )


def definition(own: Iterable[Metric]) -> dict[str, str]:
    """Return what pins a metric down, as lines of text."""
    found: dict[str, str] = {}
    for each in own:
        for key, value in each["definition"].items():
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            if value is not None and key != "warning":
                found.setdefault(str(key).replace("_", " "), f"{text[:LONG]} …" if len(text) > LONG else text)
    return found


def _drawing(cells: dict[str, Metric], variants: list[str]) -> tuple[list[Mark], tuple[float, float]]:
    """Place values and intervals on one scale: from 0 to 1 where all fit, else from the least to the greatest."""
    shown = [cells[name] for name in variants if name in cells and cells[name]["value"] is not None]
    numbers = [each[end] for each in shown for end in ("low", "value", "high") if each[end] is not None]
    if not numbers:
        return [], (0.0, 1.0)
    unit = min(numbers) >= 0 and max(numbers) <= 1
    least, most = (0.0, 1.0) if unit else (min(0.0, *numbers), max(0.0, *numbers))
    width, height = PLOT

    def x(value: float) -> float:
        return round(4 + (width - 8) * (value - least) / ((most - least) or 1.0), 1)

    def mark(number: int, each: Metric) -> Mark:
        low, high = (each["value"] if each[end] is None else each[end] for end in ("low", "high"))
        step = height / (len(shown) + 1)
        return Mark(each["variant"], x(each["value"]), x(low), x(high), round(step * (number + 1), 1))

    return [mark(number, each) for number, each in enumerate(shown)], (least, most)
