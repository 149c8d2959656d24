"""The components of a run: a table of those with the largest scores, and what the page's zoom shows of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from cad_exp.reporting.figures.layers import PARTS, short_name
from cad_exp.reporting.html.edit import factors
from cad_exp.reporting.html.source import Source
from cad_exp.reporting.wording import units
from cad_exp.utils.text import safe

TOP = 25  # rows of the table, of each sign
ZOOMED = 6_000  # components that the zoom knows, the largest scores first
NEIGHBOURS = 6  # of a component, by interaction


@dataclass(frozen=True)
class Named:
    """The scored components, in their order. layers: "down 0, transformer 0 · cross-attention"; names: within it.

    scores, errors: (n,); errors is None where the estimator knows none. rank (n,): 1 for the largest score. zoomed:
    numbers of those that the zoom knows. A row of weights is a matrix.
    """

    table: pd.DataFrame
    layers: list[str]
    names: list[str]
    scores: np.ndarray
    errors: np.ndarray | None
    rank: np.ndarray
    zoomed: np.ndarray

    @property
    def place(self) -> dict[int, int]:
        """Where a component stands among the zoomed ones."""
        return {int(number): at for at, number in enumerate(self.zoomed)}


@dataclass(frozen=True)
class Component:
    """A row of the table. number: of the component in the zoom; share: of all absolute scores.

    factor: by which the edit multiplies it; None where the edit has no factors of their own.
    """

    number: int
    rank: int
    name: str
    layer: str
    kind: str
    score: float
    error: float | None
    share: float
    factor: float | None


@dataclass(frozen=True)
class Components:
    """rows: of the table; power: of ten, of scores and errors as shown; errors, factors: whether these are known."""

    rows: list[Component]
    power: int
    errors: bool
    factors: bool
    units: str
    of: int


def named(source: Source) -> Named | None:
    """Return the components of a run with their names; None for a run without scores."""
    table = source.components
    if table is None:
        return None
    places = zip(table["module"], table["block"], table["kind"], strict=True)
    layers = [f"{short_name(str(module), str(block))} · {kind}" for module, block, kind in places]
    names = [str(each).rpartition(" · ")[2] for each in table["name"]]
    scores = table["score"].to_numpy(dtype=float)
    errors = table["error"].to_numpy(dtype=float) if "error" in table and table["error"].notna().all() else None
    rank = np.empty(len(scores), dtype=int)
    rank[np.argsort(-scores, kind="stable")] = np.arange(1, len(scores) + 1)
    zoomed = np.sort(np.argsort(-np.abs(scores), kind="stable")[:ZOOMED])
    return Named(table, layers, names, scores, errors, rank, zoomed)


def components(source: Source) -> Components | None:
    """Return the table of a run's components; None for a run without scores."""
    found = named(source)
    if found is None:
        return None
    order, scores = np.argsort(-found.scores, kind="stable"), found.scores
    best = [int(i) for i in order[:TOP] if scores[i] > 0]
    worst = [int(i) for i in order[::-1][:TOP] if scores[i] < 0][::-1]
    place, total, most = found.place, np.abs(scores).sum() or 1.0, np.abs(scores).max()
    own = factors(source)
    rows = [_row(found, i, place.get(i, -1), float(abs(scores[i]) / total), own) for i in [*best, *worst]]
    power = int(np.floor(np.log10(most))) if most else 0
    what = units(str(source.run.get("granularity"))) if source.single else "matrices"
    return Components(
        rows, 0 if -2 < power < 4 else power, found.errors is not None, own is not None, what, len(scores)
    )


def _row(found: Named, i: int, place: int, share: float, factors: np.ndarray | None) -> Component:
    kind, error = str(found.table["kind"].iloc[i]), None if found.errors is None else float(found.errors[i])
    layer = found.layers[i].removesuffix(f" · {kind}")
    factor = None if factors is None else float(factors[i])
    return Component(
        place, int(found.rank[i]), found.names[i], layer, kind, float(found.scores[i]), error, share, factor
    )


def zoom(source: Source) -> dict[str, Any] | None:
    """Return what the page's script knows of components, by layers in the order of the map; None without scores."""
    found = named(source)
    if found is None:
        return None
    blocks = zip(found.table["module"], found.layers, found.table["block"], strict=True)
    layers = list(dict.fromkeys((module, layer, _part(str(block))) for module, layer, block in blocks))
    layers.sort(key=lambda each: each[2])
    number = {module: at for at, (module, _, _) in enumerate(layers)}
    modules, kept, own = list(found.table["module"]), found.zoomed, factors(source)
    return {
        "layers": [safe(layer) for _, layer, _ in layers],
        "names": [safe(found.names[i]) for i in kept],
        "layer": [number[modules[i]] for i in kept],
        "score": [_short(found.scores[i]) for i in kept],
        "error": None if found.errors is None else [_short(found.errors[i]) for i in kept],
        "rank": [int(found.rank[i]) for i in kept],
        "factor": None if own is None else [_short(own[i]) for i in kept],
        "of": len(found.scores),
        "pairs": _neighbours(source, found.place),
    }


def _part(block: str) -> int:
    """Return the place of a block's part in the network, as on the map: -1 where it has no such parts."""
    return next((number for number, part in enumerate(PARTS) if block.startswith(part)), -1)


def _neighbours(source: Source, place: dict[int, int]) -> list[list[list[float]]]:
    """Return of every component its strongest interactions, as [other component, interaction]; [] without any.

    The interaction is what ablating both does to J beyond the sum of both.
    """
    pairs = source.table("interactions.parquet")
    if pairs is None:
        return []
    found: list[list[list[float]]] = [[] for _ in place]
    order = pairs["interaction"].abs().sort_values(ascending=False, kind="stable").index
    for one, other, value in pairs.loc[order, ["one", "other", "interaction"]].itertuples(index=False):
        for mine, theirs in ((one, other), (other, one)):
            if mine in place and theirs in place and len(found[place[mine]]) < NEIGHBOURS:
                found[place[mine]].append([place[theirs], _short(value)])
    return found


def _short(value: float) -> float:
    """Return a number with four digits: the page holds thousands of them."""
    return float(f"{value:.4g}")
