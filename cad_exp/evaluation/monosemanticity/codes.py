"""Codes of images: what they must be, which latents act, and in which images each acts most."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from cad_exp.representations.probes.base import Split
from cad_exp.representations.probes.maps import usable


def columns(codes: Any) -> sparse.csc_matrix:
    """Return codes (images, latents) by latent, without stored zeros, the images of each latent in order.

    Raises:
        ValueError: a code is negative or not finite.
    """
    found = sparse.csc_matrix(codes, dtype=np.float64, copy=True)
    found.sum_duplicates()
    found.eliminate_zeros()
    if len(found.data) and not (np.isfinite(found.data).all() and found.data.min() > 0):
        raise ValueError("codes are finite and not negative: a direction with two signs is two latents")
    return found


def activity(codes: Any) -> np.ndarray:
    """Return in how many images each latent acts, (latents,) int; 0 for a dead one."""
    return np.diff(columns(codes).indptr)


def top_images(codes: Any, top: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return the images in which each latent acts most.

    Among images with equal codes chance decides (`seed`): their order in a data set often follows the classes.

    Returns:
        Which latents act in at least `top` images, (L,), and these images, (L, top), the strongest first.
    """
    order = np.random.default_rng([seed, 17]).permutation(codes.shape[0])
    shuffled = columns(sparse.csr_matrix(codes)[order])
    starts, rows, values = shuffled.indptr, order[shuffled.indices], shuffled.data
    latents = np.flatnonzero(np.diff(starts) >= top)
    images = np.empty((len(latents), top), int)
    for place, latent in enumerate(latents):
        own = slice(starts[latent], starts[latent + 1])
        images[place] = rows[own][np.argsort(-values[own], kind="stable")[:top]]
    return latents, images


def permuted(classes: np.ndarray, times: int, seed: int = 0) -> Iterator[np.ndarray]:
    """Yield the classes of images, permuted among them: what labels look like to which no latent is related."""
    rng = np.random.default_rng([seed, 18])
    for _ in range(times):
        yield rng.permutation(classes)


@dataclass(frozen=True)
class Task:
    """A label that can be read: images and classes that every part of the split has.

    classes: (images,) int from 0, -1 for an image that is left out. number: of classes. ids: (number,) their ids in
    the label. split: of the images that are kept.
    """

    classes: np.ndarray
    number: int
    ids: np.ndarray
    split: Split

    @classmethod
    def of(cls, classes: np.ndarray, split: Split) -> Task | None:
        """Return the task of a label; None where less than two classes are in every part of the split."""
        own, kept = usable(classes, split)
        if len(kept) < 2:
            return None
        numbered = np.full(len(classes), -1)
        for number, each in enumerate(kept):
            numbered[classes == each] = number
        return cls(numbered, len(kept), kept, own)

    def permuted(self, times: int, seed: int = 0) -> Iterator[np.ndarray]:
        """Yield the classes, permuted within each part of the split: every part keeps its numbers of each class."""
        rng = np.random.default_rng([seed, 19])
        for _ in range(times):
            drawn = np.full(len(self.classes), -1)
            for part in (self.split.train, self.split.validation, self.split.test):
                drawn[part] = rng.permutation(self.classes[part])
            yield drawn
