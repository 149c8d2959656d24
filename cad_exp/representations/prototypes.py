"""Prototypes: directions of features that stand for groups of images, learned without labels and of equal size.

1. Features are standardised by the training images, and every image becomes a vector of length 1.
2. Assign: Sinkhorn's algorithm shares the images out, so that every prototype gets as many (M. Cuturi, NeurIPS 2013).
   It maximises  sum_nk Q_nk <z_n, c_k> + temperature * H(Q)  over assignments whose prototypes have equal mass.
3. Update: each prototype becomes the direction of the sum of its images, which maximises the same sum over c.
4. Steps 2 and 3 take turns; of several starts the best sum stays.

That is self-labelling by optimal transport (Asano et al., arXiv 1911.05371; SwAV, 2006.09882), as the prototypes of
"Guided diffusion from self-supervised diffusion features" (2312.08825) are learned, here over all images at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

ROUNDS, STARTS, BALANCING = 100, 5, 30
TEMPERATURE = 0.05  # of the assignment, as in SwAV


@dataclass(frozen=True)
class Standard:
    """How features become vectors of length 1: less `mean` (F,), over `scale` (F,), over their length."""

    mean: np.ndarray
    scale: np.ndarray

    @classmethod
    def of(cls, features: np.ndarray) -> Standard:
        """Return the one of these images (N, F)."""
        scale = features.std(0)
        return cls(features.mean(0), np.where(scale > 0, scale, 1.0))

    def unit(self, features: np.ndarray) -> np.ndarray:
        """Return features (N, F) as vectors of length 1."""
        return normalised((features - self.mean) / self.scale)


@dataclass(frozen=True)
class Prototypes:
    """Directions (K, F) of length 1 in standardised features; `gain`: the sum that they maximise, per image."""

    standard: Standard
    directions: np.ndarray
    gain: float = 0.0

    def nearest(self, features: np.ndarray) -> np.ndarray:
        """Return the number (N,) of the prototype with the largest cosine."""
        found: np.ndarray = (self.standard.unit(features) @ self.directions.T).argmax(1)
        return found

    @classmethod
    def named(cls, features: np.ndarray, groups: np.ndarray, number: int) -> Prototypes:
        """Return the directions of the means of groups (N,) of images that are known already."""
        standard = Standard.of(features)
        return cls(standard, normalised(np.eye(number)[groups].T @ standard.unit(features)))


def normalised(vectors: np.ndarray) -> np.ndarray:
    """Return vectors (N, F) of length 1; one of length 0 stays."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: np.ndarray = vectors / np.where(length > 0, length, 1.0)
    return unit


def balanced(scores: np.ndarray, rounds: int = BALANCING) -> np.ndarray:
    """Return assignments (N, K) from scores (N, K): rows add up to 1, columns (nearly) to N / K.

    Sinkhorn's algorithm: columns and rows of exp(scores) are scaled in turn, the rows last.
    """
    kernel = np.exp(scores - scores.max(1, keepdims=True))  # a row's own factor changes nothing
    n, number = kernel.shape
    row, column = np.ones(n), np.ones(number)
    for _ in range(rounds):
        column = n / number / np.maximum(row @ kernel, 1e-300)
        row = 1 / (kernel @ column)
    shared: np.ndarray = row[:, None] * kernel * column
    return shared


def learn(features: np.ndarray, number: int, seed: int, temperature: float = TEMPERATURE) -> Prototypes:
    """Learn `number` prototypes of features (N, F); seed: of the images from which it starts."""
    standard = Standard.of(features)
    units, best = standard.unit(features), None
    for start in range(STARTS):
        rng = np.random.default_rng([seed, 41, start])
        directions, gain = spread(units, number, rng), -np.inf
        for _ in range(ROUNDS):
            scores = units @ directions.T
            shared = balanced(scores / temperature)
            before, gain = gain, objective(scores, shared, temperature)
            if gain - before < 1e-7:
                break
            directions = normalised(shared.T @ units)
        if best is None or gain > best.gain:
            best = Prototypes(standard, directions, gain)
    assert best is not None
    return best


def objective(scores: np.ndarray, shared: np.ndarray, temperature: float) -> float:
    """Return what assignments and prototypes maximise in turn, per image."""
    entropy = -(shared * np.log(np.maximum(shared, 1e-300))).sum(1)
    return float(((shared * scores).sum(1) + temperature * entropy).mean())


def spread(units: np.ndarray, number: int, rng: np.random.Generator) -> np.ndarray:
    """Return `number` of the vectors, each drawn more often the further it is from those before (k-means++)."""
    chosen = [int(rng.integers(len(units)))]
    while len(chosen) < number:
        apart = np.maximum(1 - (units @ units[chosen].T).max(1), 0)
        weights = apart / apart.sum() if apart.sum() > 0 else np.full(len(units), 1 / len(units))
        chosen.append(int(rng.choice(len(units), p=weights)))
    found: np.ndarray = units[chosen]
    return found
