"""How groups of images agree with their labels: measured on held-out images, as metrics and as a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.cluster.vq import kmeans2

from cad_exp.evaluation import clusterings
from cad_exp.evaluation.analyses.base import Given, Metric
from cad_exp.evaluation.intervals.estimate import Estimate, estimated
from cad_exp.evaluation.intervals.images import Share
from cad_exp.evaluation.intervals.resampled import Permuted
from cad_exp.evaluation.measured import metric
from cad_exp.evaluation.variants import CONTROL, NETWORK
from cad_exp.representations.probes.base import Split
from cad_exp.representations.prototypes import Standard

NMI, ARI, PURITY = "nmi", "ari", "purity"
STATISTICS = {NMI: clusterings.nmi, ARI: clusterings.ari}
WHAT = {
    NMI: "normalised mutual information of prototypes and classes, held-out images",
    ARI: "adjusted Rand index of prototypes and classes, held-out images",
    PURITY: "share of held-out images whose class is the one most frequent among their prototype's training images",
}
FEWEST = 3  # held-out images of a label, below which nothing can be said


@dataclass(frozen=True)
class Measured:
    """How groups agree with a label. estimates, chance: by measure."""

    variant: str
    place: str
    t: int
    label: str
    n: int
    estimates: Mapping[str, Estimate]
    chance: Mapping[str, Permuted]


def k_means(x: np.ndarray, train: np.ndarray, number: int, seed: int, starts: int = 4) -> np.ndarray:
    """Return the nearest of `number` centres (N,) for images (N, F): k-means of the same vectors of length 1."""
    units = Standard.of(x[train]).unit(x)
    best: tuple[float, np.ndarray] | None = None
    for start in range(starts):
        rng = np.random.default_rng([seed, 47, start])
        centres, _ = kmeans2(units[train], number, iter=50, minit="++", rng=rng, missing="warn")
        apart = ((units[:, None] - centres[None]) ** 2).sum(2)
        spread = float(apart[train].min(1).sum())
        if best is None or spread < best[0]:
            best = spread, apart.argmin(1)
    assert best is not None
    return best[1]


def agreement(given: Given, split: Split, source: tuple[str, str, int], groups: np.ndarray) -> Iterator[Measured]:
    """Yield how groups (N,) agree with every label that enough held-out images have.

    source: variant, hookpoint ("" for images) and timestep (-1 for images).
    """
    for label in given.classes:
        classes = given.images.labels[label]
        train, test = (part[classes[part] >= 0] for part in (split.train, split.test))
        if len(test) < FEWEST or not len(train) or len(np.unique(classes[test])) < 2:
            continue
        names = clusterings.majority(groups[train], classes[train], int(groups.max()) + 1)[groups[test]]
        rng = np.random.default_rng([given.seed, 53])
        by_chance = [float(np.mean(names == rng.permutation(classes[test]))) for _ in range(clusterings.TIMES)]
        estimates: dict[str, Estimate] = {PURITY: Share(names == classes[test])}
        chance = {PURITY: Permuted(np.array(by_chance))}
        for name, statistic in STATISTICS.items():
            estimates[name] = clusterings.agreement(groups[test], classes[test], statistic)
            chance[name] = clusterings.permuted(groups[test], classes[test], statistic, given.seed)
        yield Measured(*source, label, len(test), estimates, chance)


def metrics(now: Sequence[Measured]) -> Iterator[Metric]:
    """Yield a metric for each measure and label: of the network beside its rivals, and of permuted labels."""
    for each in now:
        others = {one.variant: one for one in now if one.label == each.label and one.variant != each.variant}
        for name, estimate in each.estimates.items():
            told = {
                "what": WHAT[name],
                "hookpoint": each.place or None,
                "t": None if each.t < 0 else each.t,
                "chance": each.chance[name].value,
            }
            rivals = (
                {variant: one.estimates[name] for variant, one in others.items()} if each.variant == NETWORK else {}
            )
            yield metric(f"{name}@{each.label}", each.variant, estimate, each.n, True, told, rivals)
            if each.variant == NETWORK:
                told = {"what": f"{WHAT[name]}, for the labels in random order", "t": each.t}
                yield metric(f"{name}@{each.label}", CONTROL, each.chance[name], each.n, True, told, {})


def table(found: Sequence[Measured]) -> pd.DataFrame:
    """Return everything in rows; t is -1 and the hookpoint "" where images are read."""
    rows = [
        (each.variant, each.place, each.t, each.label, name, *ends(estimate), each.chance[name].value, each.n)
        for each in found
        for name, estimate in each.estimates.items()
    ]
    return pd.DataFrame(
        rows, columns=["variant", "hookpoint", "t", "label", "measure", "value", "low", "high", "chance", "n"]
    )


def ends(estimate: Estimate) -> tuple[float, float, float]:
    """Return (value, low, high), NaN in the place of an unknown end."""
    value, low, high = (np.nan if each is None else float(each) for each in estimated(estimate))
    return value, low, high
