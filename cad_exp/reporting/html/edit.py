"""What the edit changes, counted in its file: by the header and the factors. Whole weights stay unread."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from cad_exp.reporting.html.source import Source
from cad_exp.reporting.wording import units
from cad_exp.utils.tensor_header import KEY

FILE = "edit.safetensors"
REPLACED, FACTORS, STEERING = "replaced:", "factors:", "steering:"  # as in interventions.edit_file, which needs torch
MUCH = 0.2  # change of a factor that is worth a sentence: a fifth


@dataclass(frozen=True)
class Opened:
    """The file of an edit. file: reads single tensors; names: of these; factor: of components without one of their own.

    meta: granularity, numbers of components and of weights, and how they were found.
    """

    file: Any
    names: frozenset[str]
    factor: float
    meta: dict[str, Any]

    def marked(self, mark: str) -> list[str]:
        """Return the names behind a mark, in order."""
        return sorted(name.removeprefix(mark) for name in self.names if name.startswith(mark))

    def of(self, module: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the indices (k,) of a module, and their factors (k,)."""
        return self.file.get_tensor(module), self.file.get_tensor(FACTORS + module)


@contextmanager
def opened(source: Source) -> Iterator[Opened | None]:
    """Lend the file of a run's edit; None for a run without one."""
    if not source.has(FILE):
        yield None
        return
    from safetensors import safe_open

    with safe_open(str(source.folder / FILE), framework="numpy") as file:
        told = json.loads((file.metadata() or {}).get(KEY, "{}")).get("meta", {})
        yield Opened(file, frozenset(file.keys()), float(told.get("factor", 0.0)), told.get("meta", {}))


def edit(source: Source) -> list[str] | None:
    """Return sentences on what the edit changes; None for a run without an edit."""
    with opened(source) as found:
        if found is None:
            return None
        told = [*_replaced(found), *_steers(found)] or _components(source, found)
        return told or None


def factors(source: Source) -> np.ndarray | None:
    """Return the factor (n,) of each row of the components' table, 1 for one that the edit leaves alone.

    None where the edit has no factors of their own, or where a row is no single component.
    """
    with opened(source) as found:
        return None if found is None else _by_component(source, found)


def _by_component(source: Source, found: Opened) -> np.ndarray | None:
    table, modules = source.components, set(found.marked(FACTORS))
    if table is None or not source.single or not modules or "start" not in table:
        return None
    every = np.ones(len(table))
    for module, rows in table.groupby("module", sort=False):
        if module not in modules:
            continue
        indices, own = found.of(str(module))
        order, starts = np.argsort(indices), rows["start"].to_numpy()
        # all indices of a component have its factor, so the first one is enough
        places = np.searchsorted(indices[order], starts).clip(max=len(indices) - 1)
        here = indices[order][places] == starts
        every[rows.index.to_numpy()[here]] = own[order][places][here]
    return every


def _replaced(found: Opened) -> list[str]:
    changed, matrices = found.meta.get("changed"), len(found.marked(REPLACED))
    if not matrices or changed is None:
        return []
    tensors = f"{matrices} tensor{'s' if matrices > 1 else ''}"
    return [f"The edit gives {_many(changed, 'single weight')} of {tensors} another value."]


def _steers(found: Opened) -> list[str]:
    if not found.marked(STEERING):
        return []
    also = "also " if found.marked(REPLACED) else ""
    return [f"The edit {also}steers activations while the model runs."]


def _components(source: Source, found: Opened) -> list[str]:
    """Tell of the components that the edit multiplies."""
    number, every = found.meta.get("achieved"), found.meta.get("components")
    if not number or not every:
        return []
    of = f"{number:,} of {every:,} {units(str(found.meta.get('granularity', 'component')))}"
    if not found.marked(FACTORS):
        how = "drawn at random" if found.meta.get("edit") == "random" else "chosen by their scores"
        return [_alike(of, how, found)]
    own = _by_component(source, found)
    if own is None:  # a weight is a component of its own, and its factor is all there is to count
        own = np.concatenate([found.file.get_tensor(FACTORS + module) for module in found.marked(FACTORS)])
    own = own[own != 1]
    if len(own) != number:  # of a table that the edit does not fit
        return [f"The edit changes {of}."]
    return [*_groups(of, own), *_found(found, own)]


def _alike(of: str, how: str, found: Opened) -> str:
    """Tell of components that all have one factor."""
    if found.meta.get("ablation") == "resample":
        return f"The edit puts what the base prompt would give in place of {of}, {how}."
    if found.factor == 0:
        return f"The edit switches off {of}, {how}."
    return f"The edit multiplies {of} by {found.factor:g}, {how}.".replace("-", "−")


def _groups(of: str, own: np.ndarray) -> list[str]:
    """Tell how many of the factors (k,) weaken, switch off, reverse and strengthen."""
    if not own.any():
        return [f"The edit switches off {of}."]
    counted = {"weakened": (own > 0) & (own < 1), "switched off": own == 0, "reversed": own < 0}
    counted |= {"strengthened": own > 1}
    there = [(int(mask.sum()), word) for word, mask in counted.items() if mask.any()]
    parts = [
        f"{number:,} {'' if at else 'is ' if number == 1 else 'are '}{word}" for at, (number, word) in enumerate(there)
    ]
    much = int((np.abs(own - 1) >= MUCH).sum())
    said = "All change" if much == len(own) else "None changes" if not much else f"{much:,} change{'s' * (much == 1)}"
    return [f"The edit changes {of}: {', '.join(parts)}.", f"{said} by a fifth or more."]


def _found(found: Opened, own: np.ndarray) -> list[str]:
    """Say that gates are found without scores: only then the file tells how far `beyond` they lead."""
    if "beyond" not in found.meta:
        return []
    return [f"It finds these {'factors' if own.any() else 'components'} itself, and not by the scores below."]


def _many(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
