"""Dictionaries of several widths side by side: how far classes are split, what is absorbed, which latents are shared.

Each width is compared with the next narrower one. Splitting and absorption are measured of the controls too, for more
latents may be more parts in any dictionary. `evaluation/monosemanticity/` says what the measures are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cad_exp.evaluation.variants import AUTOENCODER, FROZEN, RANDOM

if TYPE_CHECKING:
    from cad_exp.evaluation.monosemanticity.absorption import Absorption
    from cad_exp.evaluation.monosemanticity.codes import Task
    from cad_exp.evaluation.monosemanticity.splitting import Splitting
    from cad_exp.representations.probes.base import Split

Metric = dict[str, Any]
COMPARED = (AUTOENCODER, FROZEN, RANDOM)


@dataclass(frozen=True)
class Wide:
    """One width of a hookpoint and k. codes: variant -> (images, width) sparse; decoders: variant -> (width, d).

    alive: (width,) bool, which latents of the autoencoder act on held-out tokens. facts: of the autoencoder, for
    definitions. suffix: of its metrics' names.
    """

    width: int
    codes: dict[str, Any]
    decoders: dict[str, np.ndarray]
    alive: np.ndarray
    facts: dict[str, Any]
    suffix: str


def compared(widths: Sequence[Wide], features: np.ndarray, labels: dict[str, np.ndarray], split: Split) -> list[Metric]:
    """Return the metrics of several widths; nothing for one.

    features: (images, d) activations averaged over tokens. labels: label -> class (images,) of each image.
    """
    if len(widths) < 2:
        return []
    from cad_exp.evaluation.monosemanticity.codes import Task

    ordered = sorted(widths, key=lambda each: each.width)
    tasks = {label: task for label in labels if (task := Task.of(labels[label], split)) is not None}
    found = [metric for label, task in tasks.items() for metric in _of_label(ordered, features, label, task)]
    return [*found, *_shared(ordered)]


def _of_label(widths: Sequence[Wide], features: np.ndarray, label: str, task: Task) -> Iterator[Metric]:
    from cad_exp.evaluation.monosemanticity.absorption import absorption
    from cad_exp.evaluation.monosemanticity.splitting import splitting
    from cad_exp.evaluation.monosemanticity.widths import absorption_metrics, splitting_metric

    for variant in COMPARED:
        splits: dict[str, Splitting] = {}
        taken: dict[str, Absorption] = {}  # of the width before
        for each in widths:
            if variant not in each.codes:
                continue
            codes = each.codes[variant]
            parts = splitting(codes, task)
            absorbed = absorption(codes, each.decoders[variant], features, task, parts.mains)
            yield from _named(each, [splitting_metric(variant, label, parts, splits)])
            yield from _named(each, absorption_metrics(variant, label, absorbed, taken))
            name = f"width {each.width}"
            splits, taken = {name: parts}, {name: absorbed}


def _shared(widths: Sequence[Wide]) -> Iterator[Metric]:
    from cad_exp.evaluation.monosemanticity.matching import shared
    from cad_exp.evaluation.monosemanticity.widths import shared_metrics

    for narrow, wide in zip(widths, widths[1:], strict=False):
        found = shared(narrow.decoders[AUTOENCODER], wide.decoders[AUTOENCODER], narrow.alive, wide.alive)
        yield from _named(narrow, shared_metrics(AUTOENCODER, "the next width", found), {"other": wide.width})


def _named(of: Wide, metrics: Iterator[Metric] | list[Metric], more: dict[str, Any] | None = None) -> Iterator[Metric]:
    for metric in metrics:
        definition = {**metric["definition"], **of.facts, **(more or {})}
        yield {**metric, "name": metric["name"] + of.suffix, "definition": definition}
