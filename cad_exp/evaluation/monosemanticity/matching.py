"""Which latents two dictionaries share (G. Paulo and N. Belrose, arXiv 2501.16615).

Latents that act are matched one to one so that the sum of the cosines of their decoder directions is largest (the
Hungarian algorithm). A pair is shared if its cosine is at least .7. The paper asks the encoders to agree as well; a
rival has none, so only decoders are compared. Beside it stands what random directions give: with few dimensions and
many latents they, too, find partners.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from cad_exp.evaluation.intervals.images import Share

COSINE = 0.7


@dataclass(frozen=True)
class Shared:
    """The partners of one dictionary's latents in another.

    partners: (latents,) of the first dictionary: the latent of the second, -1 for one without partner or dead.
    cosines: (latents,) with that partner, NaN without. alive: (latents,) bool. cosine: from which a pair is shared.
    chance: the share with random directions of the same numbers of latents.
    """

    partners: np.ndarray
    cosines: np.ndarray
    alive: np.ndarray
    cosine: float
    chance: float

    def share(self) -> Share:
        """Return the share of the first dictionary's alive latents that have a partner with a cosine high enough."""
        return Share(np.nan_to_num(self.cosines[self.alive], nan=-1.0) >= self.cosine)


def shared(
    first: np.ndarray,
    second: np.ndarray,
    alive_first: np.ndarray | None = None,
    alive_second: np.ndarray | None = None,
    cosine: float = COSINE,
    seed: int = 0,
) -> Shared:
    """Match the latents of two dictionaries by their decoder directions.

    It takes time and memory that grow with the product of the two numbers of latents; some thousand are seconds. Where
    the second dictionary has fewer latents than the first, not every latent of the first can have a partner.

    Args:
        first: (A, features) decoder directions of any length.
        second: (B, features).
        alive_first: (A,) bool, which latents act; None for all.
        alive_second: (B,) bool.
        cosine: from which a pair is shared.
        seed: of the random directions.
    """
    kept = [_kept(each, alive) for each, alive in ((first, alive_first), (second, alive_second))]
    rows, others = (np.flatnonzero(each) for each in kept)
    partners, cosines = np.full(len(first), -1), np.full(len(first), np.nan)
    pairs, values = _matched(first[rows], second[others])
    partners[rows[pairs[0]]], cosines[rows[pairs[0]]] = others[pairs[1]], values
    rng = np.random.default_rng([seed, 37])
    drawn = [rng.normal(size=(len(each), first.shape[1])) for each in (rows, others)]
    chance = float((_matched(*drawn)[1] >= cosine).sum() / max(len(rows), 1))
    return Shared(partners, cosines, kept[0], cosine, chance)


def _kept(decoder: np.ndarray, alive: np.ndarray | None) -> np.ndarray:
    """Return which latents act and have a direction."""
    directed: np.ndarray = np.linalg.norm(decoder, axis=1) > 0
    return directed if alive is None else directed & np.asarray(alive, bool)


def _matched(first: np.ndarray, second: np.ndarray) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray]:
    """Return the pairs of rows with the largest sum of cosines, and their cosines."""
    units = [each / np.linalg.norm(each, axis=1, keepdims=True) for each in (first, second)]
    cosines = units[0] @ units[1].T
    rows, others = linear_sum_assignment(cosines, maximize=True)
    return (rows, others), cosines[rows, others]
