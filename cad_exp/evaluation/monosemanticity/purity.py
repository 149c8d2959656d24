"""Purity and label entropy of the images in which a latent acts most, with the permutation null.

1. Images without a class are left out. Of each latent that acts in at least `top` images the `top` strongest are taken.
2. Purity is the share of their most frequent class. Entropy is that of their classes in bits; divided by
   log2(min(top, classes)), the most that so few images can have, it is normalised to 0..1.
3. The null permutes the classes among images, with each latent's images as they are, so latents that share images stay
   related. Every latent has the same null: any `top` images are a random draw. So its quantile is one number.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from cad_exp.evaluation.intervals.images import Share
from cad_exp.evaluation.monosemanticity.codes import activity, permuted, top_images
from cad_exp.evaluation.monosemanticity.over_latents import OverLatents

TOP = 8
PERMUTATIONS = 200
QUANTILE = 0.99


@dataclass(frozen=True)
class Null:
    """What permuted classes give.

    purity, entropy: means over latents and permutations. means: (P,) mean purity in each permutation.
    quantile: QUANTILE of one latent's purity. above: the share of latents that lie above it by chance, at most .01.
    """

    purity: float
    entropy: float
    means: np.ndarray
    quantile: float
    above: float


@dataclass(frozen=True)
class Purity:
    """What the top images of each latent show.

    latents: (L,) those that act in at least `top` images with a class. images: (L, top) row numbers in the codes, the
    strongest first. purity: (L,) 1/top..1. entropy: (L,) in bits. classes: how many. alive, dead: how many latents act
    in any image, and how many in none. null: None where no latent is left.
    """

    latents: np.ndarray
    images: np.ndarray
    purity: np.ndarray
    entropy: np.ndarray
    classes: int
    alive: int
    dead: int
    null: Null | None
    seed: int = 0

    @property
    def top(self) -> int:
        """How many images a latent is judged by."""
        return int(self.images.shape[1])

    @property
    def normalised(self) -> np.ndarray:
        """Entropy (L,) as a share of the most that `top` images of so many classes can have, 0..1."""
        most = np.log2(min(self.top, self.classes))
        found: np.ndarray = self.entropy / most if most else np.zeros_like(self.entropy)
        return found

    def mean(self) -> OverLatents:
        """Return the mean purity over latents; its `change` is the difference to another dictionary."""
        return OverLatents.of(self.purity, self.seed)

    def mean_entropy(self) -> OverLatents:
        """Return the mean entropy over latents, in bits."""
        return OverLatents.of(self.entropy, self.seed)

    def above(self) -> Share:
        """Return the share of latents that are purer than QUANTILE of the null."""
        assert self.null is not None
        return Share(self.purity > self.null.quantile)

    def p_value(self) -> float:
        """Return how often permuted classes give a mean purity at least as high, 1 / (P + 1) at the least."""
        assert self.null is not None
        reached = self.null.means >= self.purity.mean() - 1e-12
        return float((1 + reached.sum()) / (1 + len(reached)))


def purity(codes: Any, classes: np.ndarray, top: int = TOP, permutations: int = PERMUTATIONS, seed: int = 0) -> Purity:
    """Measure purity and label entropy of every latent, and their null.

    Args:
        codes: (images, latents), not negative.
        classes: (images,) int, below 0 for no class.
        top: images by which a latent is judged, at least 1.
        permutations: of the null.
        seed: of ties, permutations and resamples.
    """
    rows = np.flatnonzero(classes >= 0)
    own = sparse.csr_matrix(codes)[rows]
    ids, numbered = np.unique(classes[rows], return_inverse=True)
    latents, images = top_images(own, top, seed)
    alive = int((activity(codes) > 0).sum())
    shares, entropies = _shown(numbered[images], len(ids))
    null = _null(images, numbered, len(ids), permutations, seed) if len(latents) else None
    dead = own.shape[1] - alive
    return Purity(latents, rows[images], shares, entropies, len(ids), alive, dead, null, seed)


def _shown(shown: np.ndarray, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Return purity (L,) and entropy (L,) in bits of classes (L, top), 0..number - 1."""
    cells = shown + number * np.arange(len(shown))[:, None]
    counts = np.bincount(cells.ravel(), minlength=number * len(shown)).reshape(len(shown), number)
    shares = counts / shown.shape[1]
    bits = np.where(counts > 0, shares * np.log2(np.where(counts > 0, shares, 1.0)), 0.0)
    return shares.max(1, initial=0.0), np.abs(bits.sum(1))  # not -0


def _null(images: np.ndarray, classes: np.ndarray, number: int, permutations: int, seed: int) -> Null:
    drawn = [_shown(each[images], number) for each in permuted(classes, permutations, seed)]
    pooled = np.array([shares for shares, _ in drawn])
    quantile = float(np.quantile(pooled, QUANTILE, method="higher"))
    entropy = float(np.mean([bits for _, bits in drawn]))
    return Null(float(pooled.mean()), entropy, pooled.mean(1), quantile, float((pooled > quantile).mean()))
