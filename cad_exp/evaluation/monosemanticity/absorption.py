"""Feature absorption (D. Chanin et al., arXiv 2409.14507): another latent speaks where a class's own ones are silent.

1. Each class has a direction among the activations: the mean of its training images less the mean of the other classes'
   means, of length 1. It is the weight of the simplest linear probe. The weights of a ridge or logistic probe also hold
   what cancels noise, large where the activations hardly vary, and no decoder direction need resemble that.
2. Taken are the test images of a class that a ridge probe on the activations reads rightly: the model knows it there.
3. A latent's contribution to such an image is its code times its decoder direction along the class's direction.
4. The image is absorbed if three things hold. All main latents of the class (`splitting`) are silent. The latent with
   the largest contribution has a decoder direction whose cosine with the class's is at least `COSINE`. It alone carries
   at least `SHARE` of the projection of the activation, less the mean of the class means, onto the class's direction,
   and that is positive.

This is full absorption by one latent, as SAEBench computes it without ablations (which does not take the mean off). The
first version of the paper asked for the largest ablation effect instead, one unit larger than the next.

By chance: the decoder directions of all other latents are dealt out among them anew. In d dimensions random cosines are
about 1 / sqrt(d), so for d of some hundred a cosine of .025 says next to nothing, and chance is not small. A dictionary
whose latents are never silent (raw channels, principal components) has no absorption by definition.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from cad_exp.evaluation.intervals.labels import Shares
from cad_exp.evaluation.monosemanticity.codes import Task, activity
from cad_exp.representations.probes.linear import fit

COSINE = 0.025
SHARE = 0.4
PERMUTATIONS = 20

_Found = tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Absorption:
    """Which test images of each class are absorbed.

    absorbed, silent: one bool array for each class, of its test images that the probe reads rightly: whether the image
    is absorbed, and whether the main latents are silent at all. absorbers: for each class the latents that spoke
    instead, one for each absorbed image. chance: (P,) the mean share with dealt-out decoder directions.
    """

    absorbed: tuple[np.ndarray, ...]
    silent: tuple[np.ndarray, ...]
    absorbers: tuple[np.ndarray, ...]
    chance: np.ndarray

    def rate(self) -> Shares:
        """Return the share of absorbed images, every class with an image that is read rightly weighing alike."""
        return Shares([each for each in self.absorbed if len(each)])

    def silence(self) -> Shares:
        """Return the share of images in which the main latents are silent: the most that can be absorbed."""
        return Shares([each for each in self.silent if len(each)])


def absorption(
    codes: Any,
    decoder: np.ndarray,
    features: np.ndarray,
    task: Task,
    mains: Sequence[np.ndarray],
    cosine: float = COSINE,
    share: float = SHARE,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> Absorption:
    """Find the test images whose class is told by a latent other than the class's main ones.

    Args:
        codes: (images, latents), not negative.
        decoder: (latents, features) what a latent adds to the reconstruction for each unit of its code.
        features: (images, features) activations, pooled over positions as the codes are; by the mean, for only means
            of codes add up to the mean of the reconstruction.
        task: the label (`Task.of`).
        mains: for each class its main latents (`Splitting.mains`).
        cosine: of the absorbing latent's direction with the class's, at least.
        share: of the activation's projection that it carries, at least; 0 asks for nothing.
        permutations: of the chance level, at least 1.
        seed: of the permutations.

    Raises:
        ValueError: the decoder has not one direction for each latent and feature.
    """
    own = sparse.csr_matrix(codes, dtype=np.float64)
    if decoder.shape != (own.shape[1], features.shape[1]):
        raise ValueError(f"a decoder of shape {(own.shape[1], features.shape[1])} is wanted, not {decoder.shape}")
    read, (directions, mean) = _read(features, task), _directions(features, task)
    given = [(features[rows] - mean) @ directions[:, c] for c, rows in enumerate(read)]
    along, length = np.asarray(decoder, np.float64) @ directions, np.linalg.norm(decoder, axis=1)
    images = [own[rows] for rows in read]
    alive, rng = activity(own) > 0, np.random.default_rng([seed, 31])

    def found(deal: bool) -> list[_Found]:
        orders = [_dealt(alive, each, rng) if deal else np.arange(len(alive)) for each in mains]
        return [
            _absorbed(images[c], along[order, c], mains[c], given[c], (cosine * length[order], share))
            for c, order in enumerate(orders)
        ]

    chance = [np.mean([part[0].mean() for part in found(True) if len(part[0])] or [0.0]) for _ in range(permutations)]
    absorbed, silent, absorbers = zip(*found(False), strict=True)
    return Absorption(absorbed, silent, absorbers, np.array(chance))


def _read(features: np.ndarray, task: Task) -> list[np.ndarray]:
    """Return the rows of each class's test images that a ridge probe on the activations reads rightly."""
    probe, test = fit(features, task.classes, task.split), task.split.test
    rightly = test[probe.predict(features[test]) == task.classes[test]]
    return [rightly[task.classes[rightly] == number] for number in range(task.number)]


def _directions(features: np.ndarray, task: Task) -> tuple[np.ndarray, np.ndarray]:
    """Return by training images each class's direction (features, C), of length 1, and the mean of the class means."""
    train = task.split.train
    each = [np.asarray(features[train[task.classes[train] == c]], np.float64).mean(0) for c in range(task.number)]
    means = np.stack(each, 1)
    apart = means - (means.sum(1, keepdims=True) - means) / (task.number - 1)
    return apart / np.maximum(np.linalg.norm(apart, axis=0), 1e-300), means.mean(1)


def _absorbed(
    codes: sparse.csr_matrix,
    along: np.ndarray,
    mains: np.ndarray,
    projected: np.ndarray,
    least: tuple[np.ndarray, float],
) -> _Found:
    """Return of images (n, latents) whether each is absorbed, whether the mains are silent, and by which latents.

    along: (latents,) decoder directions along the class's. projected: (n,) activations along it. least: what the
    absorbing latent's direction must have along the class's, (latents,), and of the projection which share.
    """
    if not codes.shape[0]:
        return np.zeros(0, bool), np.zeros(0, bool), np.zeros(0, int)
    silent = np.asarray(codes[:, mains].sum(1)).ravel() == 0
    given = codes.multiply(along).toarray()
    top = given.argmax(1)
    most = given[np.arange(len(top)), top]
    absorbed = silent & (most > 0) & (along >= least[0])[top] & (projected > 0) & (most >= least[1] * projected)
    return absorbed, silent, top[absorbed]


def _dealt(alive: np.ndarray, mains: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return which latent's direction each latent gets: those that act and are not main ones swap theirs."""
    order = np.arange(len(alive))
    others = np.setdiff1d(np.flatnonzero(alive), mains)
    order[others] = rng.permutation(others)
    return order
