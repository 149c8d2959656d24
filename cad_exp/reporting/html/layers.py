"""The map of layers and components as a drawing: one row a layer, its shares and its components from best to worst."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from cad_exp.evaluation import verdict
from cad_exp.reporting.figures.layers import Layer, layers_of, strip
from cad_exp.reporting.html.components import zoom
from cad_exp.reporting.html.source import Source
from cad_exp.reporting.wording import units

WIDTH, ROW, TOP = 1000, 26, 44  # pixels
LABELS, BARS, STRIPS = (0, 268), (280, 560), (580, 1000)  # from where to where, across
SHADES = 10  # levels of a strip's colours
CELL = 16  # height of a bar and of a strip


@dataclass(frozen=True)
class Shade:
    """All cells of a strip with one colour. path: of the drawing; sign: makes or suppresses; opacity: in (0, 1]."""

    path: str
    sign: str
    opacity: float


@dataclass(frozen=True)
class Row:
    """A layer in the drawing. number: in the order of the network; widths of its bars in pixels, shares in percent."""

    number: int
    name: str
    kind: str
    count: int
    y: float
    helps: float
    suppresses: float
    makes_width: float
    suppresses_width: float
    shades: list[Shade]
    new_part: bool


@dataclass(frozen=True)
class Map:
    """rows: of the drawing; middle: where bars begin; ticks: (x, words) of their axis; told: what it says.

    zoom: what the script knows.
    """

    rows: list[Row]
    height: int
    middle: float
    ticks: list[tuple[float, str]]
    told: str
    units: str
    count: int
    single: bool
    place: dict[str, tuple[int, int]]
    zoom: dict[str, Any] | None


def layers(source: Source) -> Map | None:
    """Return the map of a run; None for a run without scores."""
    table, scores = source.components, source.scores()
    if table is None or scores is None:
        return None
    if source.single:
        table = table.assign(index=np.arange(len(table)))
    found = layers_of(table, np.asarray(scores, dtype=float))
    reach = max(max(layer.helps, -layer.suppresses) for layer in found) or 1.0
    most = max(float(np.abs(layer.scores).max()) for layer in found) or 1.0
    middle, half = sum(BARS) / 2, (BARS[1] - BARS[0]) / 2
    rows = []
    for number, layer in enumerate(found):
        new = number > 0 and layer.part != found[number - 1].part
        makes, suppresses = (round(half * share / reach, 1) for share in (layer.helps, -layer.suppresses))
        bars = (layer.helps, -layer.suppresses, makes, suppresses)
        place, shades = TOP + ROW * number, _shades(layer.scores, most)
        rows.append(Row(number, layer.name, layer.kind, len(layer.scores), place, *bars, shades, new))
    step = _step(reach)
    ticks = [(middle + half * at / reach, f"{abs(at):g} %") for at in (-step, 0, step)]
    count = sum(len(layer.scores) for layer in found)
    steady = verdict.stable(source.metrics)
    return Map(
        rows,
        TOP + ROW * len(rows) + 30,
        middle,
        ticks,
        told(found, steady),
        units(str(source.run.get("granularity"))),
        count,
        source.single,
        {"labels": LABELS, "bars": BARS, "strips": STRIPS},
        zoom(source),
    )


def told(found: list[Layer], steady: bool | None) -> str:
    """Say what the map shows; it names the strongest layers only where another estimate would say the same."""
    helps = sum(layer.helps for layer in found)
    text = f"{helps:.0f} % of all influence makes the concept, {100 - helps:.0f} % suppresses it. "
    if steady is False:
        return text + "Another estimate would rank the components otherwise, so none is named as the strongest."
    first, last = max(found, key=lambda layer: layer.helps), min(found, key=lambda layer: layer.suppresses)
    text += f"The strongest maker is {first.name}, {first.kind} ({first.helps:.0f} %)"
    if last.suppresses < 0:
        text += f"; the strongest suppressor is {last.name}, {last.kind} ({-last.suppresses:.0f} %)"
    return text + "."


def _step(reach: float) -> float:
    """Return a round number, near four fifths of the reach at most."""
    size = 10.0 ** np.floor(np.log10(reach))
    return float(max(each * size for each in (0.5, 1, 2, 5) if each * size <= reach) if reach >= 0.5 * size else reach)


def _shades(scores: np.ndarray, most: float) -> list[Shade]:
    """Draw a layer's scores from the best to the worst; the root keeps small ones visible beside a few large ones."""
    cells, (left, right) = strip(scores), STRIPS
    width = (right - left) / len(cells)
    levels = np.ceil(SHADES * np.sqrt(np.abs(cells) / most)).astype(int) * np.sign(cells).astype(int)
    gap = 1.2 if len(cells) <= 32 else 0.0
    drawn = []
    for level in sorted(set(levels.tolist()) - {0}):
        path, run = "", np.flatnonzero(levels == level)
        cuts = np.arange(1, len(run)) if gap else np.flatnonzero(np.diff(run) > 1) + 1
        pieces = np.split(run, cuts)
        for piece in pieces:
            start, wide = left + width * int(piece[0]), width * len(piece) - gap
            path += f"M{start:.1f} 0h{wide:.1f}v{CELL}h-{wide:.1f}z"
        drawn.append(Shade(path, "makes" if level > 0 else "suppresses", round(abs(level) / SHADES, 2)))
    return drawn
