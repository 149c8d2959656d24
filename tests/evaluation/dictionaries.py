"""Codes of toy dictionaries."""

import numpy as np
from scipy import sparse

from cad_exp.evaluation.monosemanticity.codes import Task
from cad_exp.representations.probes.base import Split, split_images


def balanced(images: int, number: int) -> np.ndarray:
    return np.arange(images) % number


def perfect(classes: np.ndarray, parts: int = 1, seed: int = 0) -> sparse.csr_matrix:
    """`parts` latents for each class, of which exactly one acts in each image of it."""
    rng = np.random.default_rng(seed)
    own = np.flatnonzero(classes >= 0)
    latents = classes[own] * parts + rng.integers(0, parts, len(own))
    shape = (len(classes), (int(classes.max()) + 1) * parts)
    return sparse.csr_matrix((1 + rng.random(len(own)), (own, latents)), shape)


def random(images: int, latents: int, density: float = 0.2, seed: int = 0) -> sparse.csr_matrix:
    return sparse.random(images, latents, density, "csr", random_state=seed)


def task(classes: np.ndarray, seed: int = 0, split: Split | None = None) -> Task:
    found = Task.of(classes, split or split_images(len(classes), seed))
    assert found is not None
    return found
