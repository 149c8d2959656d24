"""k-sparse probing (W. Gurnee et al., arXiv 2305.01610): how well k latents for each class tell the classes apart.

1. On training images each latent is ranked for each class by the size of its correlation with "is of this class", which
   orders latents as the between-class share of their variance (the F statistic of the class against the rest) does. It
   is the mean difference of the two groups in units of the latent's own spread: scales of latents do not matter.
2. For each class a ridge probe is fitted on its own first k latents, the class against all others, both weighing alike.
3. An image is read as the class whose probe says most. One strength of the penalty serves all classes, else their
   values could not be compared. It is that with the best balanced accuracy on validation images, of equals the largest.
4. Reported is the balanced accuracy over classes on test images; by chance it is 1 / classes.

A dictionary with one latent for each class reaches 1 at k = 1. Latents are ranked one by one, so two of the k may say
the same; the best subset of k would be at least as good.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from cad_exp.evaluation.intervals.labels import Shares
from cad_exp.evaluation.monosemanticity.codes import Task
from cad_exp.evaluation.probing import shares
from cad_exp.representations.probes.base import balanced_accuracy
from cad_exp.representations.probes.linear import STRENGTHS, fit

KS = (1, 2, 4, 8, 16)


@dataclass(frozen=True)
class SparseProbe:
    """What k latents for each class read.

    k: as asked; fewer where fewer act. latents: one array for each class, the strongest correlation first.
    strength: of the penalty. validation: balanced accuracy by which it was chosen. right, classes: (n,) of the test
    images. number: of classes.
    """

    k: int
    latents: tuple[np.ndarray, ...]
    strength: float
    validation: float
    right: np.ndarray
    classes: np.ndarray
    number: int

    def accuracy(self) -> Shares:
        """Return balanced accuracy on test images; its `change` against another dictionary is paired by image."""
        return shares(self.right, self.classes)


def sparse_probe(codes: Any, task: Task, k: int) -> SparseProbe:
    """Choose k latents for each class on training images, fit a probe on them, and read the test images.

    Args:
        codes: (images, latents), not negative.
        task: the label (`Task.of`).
        k: at least 1.
    """
    ranked = ranking(codes, task, k)
    chosen = tuple(ranked[each] for each in range(task.number))
    dense = sparse.csc_matrix(codes)
    features = [dense[:, own].toarray() for own in chosen]
    best: tuple[float, float, np.ndarray] | None = None
    for strength in sorted(STRENGTHS, reverse=True):
        read = np.stack([_one(features[c], task, c, strength) for c in range(task.number)], 1).argmax(1)
        accuracy = balanced_accuracy(read[task.split.validation], task.classes[task.split.validation])
        if best is None or accuracy > best[0]:
            best = accuracy, strength, read
    assert best is not None
    validation, strength, read = best
    classes = task.classes[task.split.test]
    return SparseProbe(k, chosen, strength, validation, read[task.split.test] == classes, classes, task.number)


def _one(features: np.ndarray, task: Task, number: int, strength: float) -> np.ndarray:
    """Return how much a probe of one class against the rest says for it, (images,)."""
    found: np.ndarray = one_class(features, task, number, strength)[:, 1]
    return found


def one_class(features: np.ndarray, task: Task, number: int, strength: float) -> np.ndarray:
    """Return what a probe of one class says of every image against it and for it, (images, 2)."""
    member = (task.classes == number).astype(int)
    return fit(features, member, task.split, (strength,)).values(features)


def ranking(codes: Any, task: Task, most: int, speaking: bool = False) -> list[np.ndarray]:
    """Return for each class the latents with the strongest correlation on training images, at most `most`.

    speaking: take only latents that act more in the class than elsewhere; else those that fall silent in it, too.
    Latents that do not vary are never taken. Of equals the first latent comes first.
    """
    found = association(codes, task)
    strength = found if speaking else np.abs(found)
    orders = np.argsort(-strength, axis=1, kind="stable")
    return [order[own[order] > 0][:most] for order, own in zip(orders, strength, strict=True)]


def association(codes: Any, task: Task) -> np.ndarray:
    """Return the correlation of each latent's code with "is of this class" over training images, (classes, latents).

    0 for a latent that does not vary. Its square is the share of the latent's variance that lies between the class and
    the rest.
    """
    own, classes = sparse.csr_matrix(codes, dtype=np.float64)[task.split.train], task.classes[task.split.train]
    member = sparse.csr_matrix((classes == np.arange(task.number)[:, None]).astype(np.float64))
    counts = np.bincount(classes, minlength=task.number)[:, None]
    mean = np.asarray(own.mean(0)).ravel()
    variance = np.asarray(own.multiply(own).mean(0)).ravel() - mean**2
    varies = variance > 1e-12 * mean**2
    share = counts / len(classes)
    apart = (member @ own).toarray() / counts - mean
    return np.where(varies, apart * np.sqrt(share / (1 - share)) / np.sqrt(np.where(varies, variance, 1.0)), 0.0)
