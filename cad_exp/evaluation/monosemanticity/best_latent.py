"""The best latent of each class: how well one latent with one threshold finds the images of a class.

1. On training images, for each class, all latents and thresholds are tried; the pair with the best F1 is kept. A latent
   says "of this class" where its code is above the threshold, so it speaks for a class only by acting.
2. Its F1, precision and recall are taken on test images.
3. By chance: the same search with classes permuted within each part of the split. A search over many latents finds
   something on training images even then; on test images it is worth what guessing is, about the share of the class.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from cad_exp.evaluation.monosemanticity.codes import Task, columns
from cad_exp.evaluation.monosemanticity.f1 import F1s, best_cut

PERMUTATIONS = 20


@dataclass(frozen=True)
class BestLatents:
    """The best latent of each class of a label, chosen on training images.

    latents: (C,) -1 where none acts in a training image. thresholds: (C,). training: (C,) F1 on training images.
    test: on test images. chance: (P,) mean F1 on test images under permuted classes; training_chance: on training
    images. task: the label's classes and images.
    """

    latents: np.ndarray
    thresholds: np.ndarray
    training: np.ndarray
    test: F1s
    chance: np.ndarray
    training_chance: np.ndarray
    task: Task


def best_latents(codes: Any, task: Task, permutations: int = PERMUTATIONS, seed: int = 0) -> BestLatents:
    """Find the best latent of each class and measure it on test images.

    Args:
        codes: (images, latents), not negative.
        task: the label (`Task.of`).
        permutations: of the chance level, at least 1.
        seed: of the permutations.
    """
    by_latent, split = columns(codes), task.split
    targets = [task.classes, *task.permuted(permutations, seed)]
    known = np.concatenate([_member(each[split.train], task.number) for each in targets], 1)
    latents, thresholds, training = _search(columns(by_latent[split.train]), known)
    true = np.concatenate([_member(each[split.test], task.number) for each in targets], 1)
    said = _said(columns(by_latent[split.test]), latents, thresholds)
    parts = [slice(start, start + task.number) for start in range(0, len(latents), task.number)]
    tests = [F1s.of(said[:, part], true[:, part]) for part in parts]
    own = parts[0]
    return BestLatents(
        latents[own],
        thresholds[own],
        training[own],
        tests[0],
        np.array([each.value for each in tests[1:]]),
        np.array([training[part].mean() for part in parts[1:]]),
        task,
    )


def _member(classes: np.ndarray, number: int) -> np.ndarray:
    """Return whether each image is of each class, (images, number) bool."""
    found: np.ndarray = classes[:, None] == np.arange(number)
    return found


def _search(codes: sparse.csc_matrix, positive: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return for each class the latent, the threshold and the F1 that are best.

    Of equals the latent with the widest gap at its threshold, as a share of its largest code.

    codes: (images, latents) by latent. positive: (images, C) bool.
    """
    total = positive.sum(0)
    latents, thresholds = np.full(len(total), -1), np.zeros(len(total))
    best, widest = np.full(len(total), -1.0), np.zeros(len(total))
    for latent in np.flatnonzero(np.diff(codes.indptr)):
        own = slice(codes.indptr[latent], codes.indptr[latent + 1])
        cuts, found, gaps = best_cut(codes.data[own], positive[codes.indices[own]], total, 0.0)
        gaps = gaps / codes.data[own].max()
        better = (found > best) | ((found == best) & (gaps > widest))
        latents[better], thresholds[better], best[better] = latent, cuts[better], found[better]
        widest[better] = gaps[better]
    return latents, thresholds, best.clip(0)


def _said(codes: sparse.csc_matrix, latents: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Return whether each latent is above its threshold in each image, (images, C) bool; a latent of -1 never is."""
    said = np.zeros((codes.shape[0], len(latents)), bool)
    for place, latent in enumerate(latents):
        if latent >= 0:
            own = slice(codes.indptr[latent], codes.indptr[latent + 1])
            said[codes.indices[own], place] = codes.data[own] > thresholds[place]
    return said
