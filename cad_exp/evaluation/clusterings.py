"""How well groups of images agree with their classes: NMI, ARI and purity, each with its interval and its chance.

All three are functions of the contingency table (groups, classes). NMI and ARI are those of scikit-learn (a test holds
them together), which is not needed here: deleting one image changes one cell, so the jackknife looks at each cell once.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from cad_exp.evaluation.intervals.resampled import LeftOut, Permuted

TIMES = 200  # random orders of the labels
Statistic = Callable[[np.ndarray], float]


def contingency(groups: np.ndarray, classes: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Return how many images (groups, classes) are in each group and class; groups and classes count from 0."""
    table = np.zeros(shape)
    np.add.at(table, (groups, classes), 1)
    return table


def nmi(table: np.ndarray) -> float:
    """Return normalised mutual information, 0..1: over the mean of the two entropies (Vinh et al., JMLR 11, 2010)."""
    share = table / table.sum()
    rows, columns = share.sum(1), share.sum(0)
    mean = (_entropy(rows) + _entropy(columns)) / 2
    return float((_entropy(rows) + _entropy(columns) - _entropy(share.ravel())) / mean) if mean > 1e-12 else 1.0


def ari(table: np.ndarray) -> float:
    """Return the adjusted Rand index (Hubert and Arabie, Journal of Classification 2, 1985): 0 by chance, 1 at most."""
    both, rows, columns = (float((x * (x - 1) / 2).sum()) for x in (table, table.sum(1), table.sum(0)))
    pairs = table.sum() * (table.sum() - 1) / 2
    expected, most = rows * columns / max(pairs, 1.0), (rows + columns) / 2
    return (both - expected) / (most - expected) if most > expected else 1.0


def agreement(groups: np.ndarray, classes: np.ndarray, statistic: Statistic) -> LeftOut:
    """Return a statistic of the table of groups (N,) and classes (N,), with its value without each image."""
    groups, classes = _numbered(groups), _numbered(classes)
    table = contingency(groups, classes, (groups.max() + 1, classes.max() + 1))
    without = np.full(table.shape, np.nan)
    for row, column in np.argwhere(table > 0):
        table[row, column] -= 1
        without[row, column] = statistic(table)
        table[row, column] += 1
    return LeftOut(statistic(table), without[groups, classes])


def permuted(groups: np.ndarray, classes: np.ndarray, statistic: Statistic, seed: int, times: int = TIMES) -> Permuted:
    """Return the statistic for classes in random order: what groups of these sizes reach by chance."""
    groups, classes = _numbered(groups), _numbered(classes)
    shape = (groups.max() + 1, classes.max() + 1)
    rng = np.random.default_rng([seed, 43])
    return Permuted(np.array([statistic(contingency(groups, rng.permutation(classes), shape)) for _ in range(times)]))


def majority(groups: np.ndarray, classes: np.ndarray, number: int) -> np.ndarray:
    """Return the most frequent class (number,) of each group; of a group without images the most frequent of all."""
    table = contingency(groups, classes, (number, int(classes.max()) + 1))
    usual = int(table.sum(0).argmax())
    return np.array([int(row.argmax()) if row.any() else usual for row in table])


def _entropy(shares: np.ndarray) -> float:
    positive = shares[shares > 0]
    return float(-(positive * np.log(positive)).sum())


def _numbered(values: np.ndarray) -> np.ndarray:
    numbers: np.ndarray = np.unique(values, return_inverse=True)[1]
    return numbers
