"""CKA: which layers, and which timesteps of a layer, order the images alike?

1. Take the pooled features of every hookpoint at every timestep.
2. Compare all hookpoints at each timestep, and each hookpoint between its timesteps (`representations.cka`).
3. Do the same in a network with random weights, and with the images of one side in random order.
4. Join neighbouring layers into blocks, as long as they are alike.

DifFormer and DifFeed (arXiv 2311.17921) compare the blocks of a diffusion model by CKA; Kornblith et al. (1905.00414).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from torch import Tensor

from cad_exp.evaluation.analyses import features
from cad_exp.evaluation.analyses.base import Analysis, Findings, Given, Metric
from cad_exp.evaluation.analyses.views import Lines, Matrix, View
from cad_exp.evaluation.intervals.estimate import estimated
from cad_exp.evaluation.intervals.resampled import LeftOut
from cad_exp.evaluation.measured import metric
from cad_exp.evaluation.variants import CONTROL, NETWORK, UNTRAINED
from cad_exp.representations.cka import Alignment, alignment, blocks
from cad_exp.utils.errors import UserError

FEWEST, MOST = 8, 1000  # images: below it nothing is debiased, above it matrices of images grow large
LAYERS = "linear CKA (debiased) of pooled features, mean over pairs of hookpoints"
TIMES = "linear CKA (debiased) of pooled features, mean over pairs of timesteps and over hookpoints"


@dataclass(frozen=True)
class Compared:
    """One variant: hookpoints with each other by timestep, and timesteps with each other by hookpoint."""

    layers: Mapping[int, Alignment]
    times: Mapping[str, Alignment]


class LayerSimilarity(Analysis):
    """Compare layers and timesteps by CKA.

    timestep: at which matrices are drawn and blocks are cut: the nearest one of those that are read. alike: CKA above
    which neighbouring layers are one block.
    """

    reads_activations, reads_untrained = "mean", True

    def __init__(self, timestep: int, alike: float):
        self.timestep, self.alike = timestep, alike

    def find(self, given: Given) -> Findings:
        """Return the CKA of all pairs of layers and of timesteps."""
        n = min(len(given.images), MOST)
        if n < FEWEST:
            raise UserError(f"{n} images are too few for CKA: images.number={FEWEST} is the least")
        order = np.random.default_rng([given.seed, 61]).permutation(n)
        read = [(NETWORK, given.activations, None), (CONTROL, given.activations, order)]
        read += [(UNTRAINED, given.untrained, None)] if given.untrained else []
        found = {}
        for number, (variant, activations, shuffled) in enumerate(read):
            found[variant] = _compared(activations, given.timesteps, n, shuffled)
            given.tick(number + 1, len(read))
        places = list(given.activations)
        t = int(given.timesteps[features.nearest(list(given.timesteps), self.timestep)])
        cut = {name: blocks(one.layers[t].values, self.alike) for name, one in found.items() if name != CONTROL}
        views = _views(found, places, t)
        return Findings(_table(found, places), _metrics(found, n), views, self._verdict(found, cut, places, t))

    def _verdict(
        self,
        found: Mapping[str, Compared],
        cut: Mapping[str, list[list[int]]],
        places: Sequence[str],
        t: int,
    ) -> dict[str, str]:
        told = {}
        for variant, parts in cut.items():
            words = "; ".join(_span(places, part) for part in parts)
            head = f"{len(parts)} of alike layers (CKA of at least {self.alike:g}) at t = {t}"
            told[f"blocks, {variant}"] = f"{head}: {words}."
        if len(places) > 1:
            values = {name: pairs(one.layers[t]).value for name, one in found.items()}
            told["layers"] = "Mean CKA of two layers: " + ", ".join(f"{v:.2f} ({n})" for n, v in values.items()) + "."
        times = {name: _steadiness(each) for name, each in found[NETWORK].times.items()}
        if len(times) and all(value is not None for value in times.values()):
            first, last = min(times, key=lambda k: times[k] or 0), max(times, key=lambda k: times[k] or 0)
            told["timesteps"] = (
                f"Changes most between timesteps: {first} (mean CKA {times[first]:.2f}); least: {last} "
                f"({times[last]:.2f})."
            )
        return told


def _compared(
    activations: Mapping[str, Tensor], timesteps: Sequence[int], n: int, shuffled: np.ndarray | None
) -> Compared:
    """shuffled: the order of the images on one side; None: the same on both."""
    read = {
        (name, number): features.pooled(activations, name, number)[:n]
        for name in activations
        for number in range(len(timesteps))
    }

    def of(keys: list[tuple[str, int]]) -> Alignment:
        own = [read[key] for key in keys]
        return alignment(own, own if shuffled is None else [each[shuffled] for each in own])

    layers = {int(t): of([(name, number) for name in activations]) for number, t in enumerate(timesteps)}
    times = {name: of([(name, number) for number in range(len(timesteps))]) for name in activations}
    return Compared(layers, times)


def pairs(found: Alignment) -> LeftOut:
    """Return the mean over pairs of different rows and columns, each pair once."""
    upper = np.triu_indices(len(found.values), 1)
    return LeftOut(float(found.values[upper].mean()), found.without[upper].mean(0))


def _steadiness(found: Alignment) -> float | None:
    return pairs(found).value if len(found.values) > 1 else None


def _metrics(found: Mapping[str, Compared], n: int) -> list[Metric]:
    kinds: dict[str, tuple[str, dict[str, LeftOut]]] = {}
    for t in found[NETWORK].layers:
        if len(found[NETWORK].layers[t].values) > 1:
            kinds[f"layers@{t}"] = LAYERS, {name: pairs(one.layers[t]) for name, one in found.items()}
    if len(found[NETWORK].layers) > 1:
        over = {name: [pairs(each) for each in one.times.values()] for name, one in found.items()}
        kinds["timesteps"] = (
            TIMES,
            {
                name: LeftOut(
                    float(np.mean([part.value for part in parts])), np.mean([part.without for part in parts], axis=0)
                )
                for name, parts in over.items()
            },
        )
    made = []
    for name, (what, estimates) in kinds.items():
        for variant, estimate in estimates.items():
            others = {other: estimates[other] for other in estimates if variant == NETWORK and other != NETWORK}
            made.append(metric(name, variant, estimate, n, None, {"what": what}, others))
    return made


def _table(found: Mapping[str, Compared], places: Sequence[str]) -> pd.DataFrame:
    rows = []
    for variant, one in found.items():
        for t, each in one.layers.items():
            rows += [
                (variant, a, b, t, t, *_ends(each, i, j)) for i, a in enumerate(places) for j, b in enumerate(places)
            ]
        for place, each in one.times.items():
            steps = list(one.layers)
            rows += [
                (variant, place, place, s, t, *_ends(each, i, j))
                for i, s in enumerate(steps)
                for j, t in enumerate(steps)
                if i != j
            ]
    return pd.DataFrame(rows, columns=["variant", "first", "second", "t_first", "t_second", "cka", "low", "high"])


def _ends(found: Alignment, i: int, j: int) -> list[float]:
    return _bounds(LeftOut(float(found.values[i, j]), found.without[i, j]))


def _bounds(estimate: LeftOut) -> list[float]:
    """Return value, low and high, NaN in the place of an unknown end."""
    return [np.nan if each is None else float(each) for each in estimated(estimate)]


def _views(found: Mapping[str, Compared], places: Sequence[str], t: int) -> list[View]:
    named = {NETWORK: "", UNTRAINED: ", random weights"}
    note = "1: both order the images alike; images in random order give 0"
    views: list[View] = [
        Matrix(f"CKA of layers at t = {t}{words}", places, places, found[name].layers[t].values, note=note)
        for name, words in named.items()
        if name in found
    ]
    steps = list(found[NETWORK].layers)
    if len(steps) > 1:
        at = steps.index(t)
        values = np.stack([found[NETWORK].times[place].values[at] for place in places])
        views.append(Matrix(f"CKA of each layer with itself at t = {t}", places, [str(each) for each in steps], values))
        if len(places) > 1:
            ends = np.array([[_bounds(pairs(one.layers[each])) for each in steps] for one in found.values()])
            value, low, high = np.moveaxis(ends, 2, 0)
            title = "Mean CKA of two layers"
            views.append(Lines(title, "timestep", steps, list(found), value, low, high))
    return views


def _span(places: Sequence[str], part: Sequence[int]) -> str:
    return places[part[0]] if len(part) == 1 else f"{places[part[0]]} to {places[part[-1]]}"
