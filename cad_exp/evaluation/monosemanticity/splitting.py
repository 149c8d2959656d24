"""Feature splitting (D. Chanin et al., arXiv 2409.14507): over how many latents a dictionary spreads a class.

1. For each class the latents that act more in it than elsewhere are ranked on training images, by their correlation
   with "is of this class" (`sparse_probe.ranking`).
2. A ridge probe of the class against the rest is fitted on the first k, its threshold that of the best F1 on training
   images, and its F1 taken on validation images.
3. k grows from 1 for as long as one more latent raises F1 by more than `JUMP`. Where it stops is the number of latents,
   and the first of the ranking are the class's main latents.
4. By chance: the best latent stays, all others are permuted among images. They know nothing of the class, so whatever
   they add to F1 is noise of the validation images. With few of these even noise jumps: read the number beside this.

The paper ranks by the weights of a probe with an L1 penalty and fits logistic probes; splitting shows as a larger
number in a wider dictionary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from scipy import sparse

from cad_exp.evaluation.intervals.images import Mean
from cad_exp.evaluation.monosemanticity.codes import Task
from cad_exp.evaluation.monosemanticity.f1 import F1s, best_cut
from cad_exp.evaluation.monosemanticity.sparse_probe import one_class, ranking

JUMP = 0.03
MOST = 10
STRENGTH = 1.0  # of the penalty: next to nothing for a few latents, but it keeps equal ones apart


@dataclass(frozen=True)
class OverClasses(Mean):
    """The mean of one number per class."""

    words: ClassVar[str] = "95 % Student t over classes; none for equal values"
    change_words: ClassVar[str] = "95 % Student t of the differences per class; none for equal differences"


@dataclass(frozen=True)
class Splitting:
    """How many latents each class needs.

    mains: one array for each class, its main latents, the best first. f1: (C, MOST) on validation images by k; NaN
    where no further latent acts. chance: (C,) the number where all latents but the best know nothing.
    """

    mains: tuple[np.ndarray, ...]
    f1: np.ndarray
    chance: np.ndarray

    @property
    def numbers(self) -> np.ndarray:
        """How many main latents each class has, (C,)."""
        return np.array([len(each) for each in self.mains])

    def mean(self) -> OverClasses:
        """Return the mean over classes; its `change` against another width is paired by class."""
        return OverClasses(self.numbers.astype(float))


def splitting(codes: Any, task: Task, jump: float = JUMP, most: int = MOST, seed: int = 0) -> Splitting:
    """Count the latents over which each class is split.

    Args:
        codes: (images, latents), not negative.
        task: the label (`Task.of`).
        jump: by how much F1 must rise for one more latent to count.
        most: latents to try.
        seed: of the chance level.
    """
    by_latent = sparse.csc_matrix(codes)
    ranked = ranking(codes, task, most, speaking=True)
    f1 = np.array([_growth(by_latent[:, own].toarray(), task, c, most) for c, own in enumerate(ranked)])
    mains = tuple(own[: _grown(rise, jump)] for own, rise in zip(ranked, f1, strict=True))
    return Splitting(mains, f1, _chance(codes, task, ranked, jump, most, seed))


def _growth(features: np.ndarray, task: Task, number: int, most: int) -> np.ndarray:
    """Return F1 on validation images of the first 1, 2, ... features, (most,); NaN where there are no more."""
    found = np.full(most, np.nan)
    train, validation = task.split.train, task.split.validation
    member = task.classes == number
    for k in range(1, features.shape[1] + 1):
        says = one_class(features[:, :k], task, number, STRENGTH)[:, 1]
        known = member[train][:, None]
        cut, _, _ = best_cut(says[train], known, known.sum(0), says[train].min() - 1.0)
        found[k - 1] = F1s.of(says[validation][:, None] > cut, member[validation][:, None]).value
    return found


def _grown(f1: np.ndarray, jump: float) -> int:
    """Return up to which k F1 (k,) rises by more than `jump` each time; 0 where no latent acts."""
    if np.isnan(f1[0]):
        return 0
    stays = np.flatnonzero(~(np.diff(f1) > jump))  # also where there are no more latents
    return int(stays[0]) + 1 if len(stays) else len(f1)


def _chance(codes: Any, task: Task, ranked: list[np.ndarray], jump: float, most: int, seed: int) -> np.ndarray:
    """Return the number of latents of each class where all but the best are permuted among images."""
    own = sparse.csr_matrix(codes)
    order = np.random.default_rng([seed, 29]).permutation(own.shape[0])
    lots = own[order]
    others = ranking(lots, task, most, speaking=True)
    by_latent, lots = own.tocsc(), lots.tocsc()
    numbers = []
    for number, (known, random) in enumerate(zip(ranked, others, strict=True)):
        rest = random[~np.isin(random, known[:1])][: most - 1]
        features = np.concatenate([by_latent[:, known[:1]].toarray(), lots[:, rest].toarray()], 1)
        numbers.append(_grown(_growth(features, task, number, most), jump))
    return np.array(numbers)
