"""The picture of interactions: every pair of components, in the order of the layers, and the strongest by name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from cad_exp.reporting.figures.canvas import HELPS, INK, PALE, SIGNED, SUPPRESSES, canvas, save
from cad_exp.reporting.figures.lettering import wrapped

SHOWN = 6  # pairs of each kind that are named
KINDS = (
    ("overlap", HELPS, "They overlap: the second loss costs less"),
    ("back up", SUPPRESSES, "They back each other up: only both are missed"),
)


def within(layers: Sequence[str], names: Sequence[str]) -> list[str]:
    """Return what each component is called in its layer, "up 0 · cross-attention · head 3"; a whole layer once only.

    layers: of each component, with its kind last. names: of the components, whose last part tells them apart.
    """
    parts = [name.rpartition(" · ")[2] for name in names]
    whole = [layer.rpartition(" · ")[2] == part for layer, part in zip(layers, parts, strict=True)]
    return [a if same else f"{a} · {part}" for a, part, same in zip(layers, parts, whole, strict=True)]


def matrix(table: pd.DataFrame, layers: list[str], path: Path | str, title: str = "", note: str = "") -> Path:
    """Draw all pairs; returns `path` (PNG).

    table: of `interactions.findings.pairs_of`. layers: the layer of each component, in order: lines part them.
    """
    n = len(layers)
    cells = np.full((n, n), np.nan)
    for rows, columns in (("one", "other"), ("other", "one")):
        cells[table[rows], table[columns]] = table["interaction"]
    width, height = 11.8, 6.6
    figure = canvas(width, height)
    heat = figure.add_axes((2.3 / width, 0.55 / height, 4.9 / width, 4.9 / height))
    most = np.nanmax(np.abs(cells)) if n > 1 else 1.0
    heat.imshow(cells, cmap=SIGNED, vmin=-most, vmax=most, interpolation="nearest")
    starts = [i for i in range(n) if i == 0 or layers[i] != layers[i - 1]]
    for start in starts[1:]:
        heat.axhline(start - 0.5, color="white", linewidth=0.9)
        heat.axvline(start - 0.5, color="white", linewidth=0.9)
    ends = [*starts[1:], n]
    heat.set_yticks([(a + b - 1) / 2 for a, b in zip(starts, ends, strict=True)], [layers[i] for i in starts])
    heat.tick_params(labelsize=6.8, length=0)
    heat.set_xticks([])
    heat.set_xlabel("the same components, in the same order", fontsize=8, color=PALE)
    for side in heat.spines.values():
        side.set_visible(False)
    _named(figure, table, width, height)
    figure.text(
        0.2 / width, 1 - 0.2 / height, wrapped(title, 92, 1), fontsize=13, fontweight="bold", color=INK, va="top"
    )
    figure.text(0.2 / width, 1 - 0.52 / height, wrapped(note, 150, 2), fontsize=8.6, color=PALE, va="top")
    return save(figure, path)


def _named(figure: Figure, table: pd.DataFrame, width: float, height: float) -> None:
    """Write the strongest pairs of each kind beside the matrix."""
    y = 1 - 1.25 / height
    for kind, colour, head in KINDS:
        figure.text(7.5 / width, y, head, fontsize=9, color=colour, fontweight="bold", va="top")
        y -= 0.24 / height
        for row in table[table["kind"] == kind].head(SHOWN).itertuples():
            text = wrapped(f"{row.interaction:+.3g}  {row.one_name} — {row.other_name}", 66, 2)
            figure.text(7.5 / width, y, text, fontsize=7.4, color=INK, va="top")
            y -= (0.18 + 0.13 * text.count("\n")) / height + 0.06 / height
        y -= 0.2 / height
