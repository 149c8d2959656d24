"""sigma_label of Revelio (arXiv 2411.16725): how far apart the class numbers of a latent's top images lie.

As in the public code: of the latents that act in more than 10 images, the 1,000 whose mean code over the images where
they act is largest; of each, the standard deviation (n - 1) of the integer classes of its 10 strongest images; the mean
over these latents. Lower is called purer.

It depends on how classes are numbered. A latent that mixes classes 3 and 4 has a small deviation, one that mixes 3 and
90 a large one, though both are equally impure; so a data set whose kindred classes are neighbours in its list looks
purer than the same data set in another order. Its scale grows with the number of classes: for n equally frequent ones
the chance level is near n / sqrt(12), 10.5 for 37 and 29 for 102. So compare it only with its own chance level, and
read `renumbered`: what the same latents give when the same classes get their numbers by lot.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from cad_exp.evaluation.monosemanticity.codes import columns, permuted, top_images
from cad_exp.evaluation.monosemanticity.over_latents import OverLatents

LATENTS, TOP = 1000, 10
PERMUTATIONS = 200


@dataclass(frozen=True)
class Sigma:
    """sigma_label with what it means.

    values: (L,) standard deviation of each latent, the most active first. chance: mean over permutations of the classes
    among images, and chance_low, chance_high, between which 95 % of them lie. renumbered: between which values 95 % of
    random numberings of the same classes lie. All None where no latent acts in enough images.
    """

    values: np.ndarray
    latents: np.ndarray
    classes: int
    top: int
    chance: float | None
    chance_low: float | None
    chance_high: float | None
    renumbered: tuple[float, float] | None
    seed: int = 0

    def mean(self) -> OverLatents:
        """Return sigma_label itself."""
        return OverLatents.of(self.values, self.seed)


def sigma_label(
    codes: Any,
    classes: np.ndarray,
    latents: int = LATENTS,
    top: int = TOP,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> Sigma:
    """Compute sigma_label with its chance level and its spread over numberings.

    Args:
        codes: (images, latents), not negative.
        classes: (images,) int as the data set numbers them, below 0 for no class.
        latents: how many of the most active latents.
        top: images of each, at least 2.
        permutations: of the chance level, and of the numberings.
        seed: of ties, permutations, numberings and resamples.
    """
    rows = np.flatnonzero(classes >= 0)
    own, numbers = sparse.csr_matrix(codes)[rows], classes[rows]
    found, images = top_images(own, top, seed)
    by_latent = columns(own)
    times = np.diff(by_latent.indptr)[found]
    strength = np.asarray(by_latent.sum(0)).ravel()[found] / times
    order = np.flatnonzero(times > top)
    order = order[np.argsort(-strength[order], kind="stable")][:latents]
    found, images = found[order], images[order]
    ids, numbered = np.unique(numbers, return_inverse=True)
    values = numbers[images].std(1, ddof=1)
    if not len(found):
        return Sigma(values, found, len(ids), top, None, None, None, None, seed)
    chance = [_mean(each[images]) for each in permuted(numbers, permutations, seed)]
    lots = [_mean(each[numbered][images]) for each in permuted(ids, permutations, seed)]
    low, high = np.percentile(chance, [2.5, 97.5])
    first, last = np.percentile(lots, [2.5, 97.5])
    numberings = float(first), float(last)
    return Sigma(values, found, len(ids), top, float(np.mean(chance)), float(low), float(high), numberings, seed)


def _mean(shown: np.ndarray) -> float:
    return float(shown.std(1, ddof=1).mean())
