"""How well a dictionary reconstructs tokens that it has not seen, and how its latents act.

FVU: the squared error as a share of the tokens' variance around their own mean. L0: latents that act on a token. dead:
latents that act on none. cosine: between a token and its reconstruction, both less the mean.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import csr_matrix, vstack
from torch import Tensor

from cad_exp.representations.sae.autoencoder import Dictionary

CHUNK = 8192  # tokens at once


@dataclass(frozen=True)
class Fit:
    """What a dictionary makes of images' tokens; everything is kept by image, so that images can be resampled.

    errors, variances: (images,) fp64, sums of squares. cosines, l0: (images,) means. tokens: how many there were.
    acting: (width,) int, tokens on which each latent acts. pooled: (images, width), each latent's mean value.
    """

    errors: np.ndarray
    variances: np.ndarray
    cosines: np.ndarray
    l0: np.ndarray
    acting: np.ndarray
    tokens: int
    pooled: csr_matrix

    @property
    def fvu(self) -> float:
        """Fraction of variance unexplained, 0 (perfect) upwards; 1 is what the mean explains."""
        return float(self.errors.sum() / self.variances.sum())

    @property
    def dead(self) -> float:
        """Share of latents that act on no token."""
        return float(np.mean(self.acting == 0))

    @property
    def frequency(self) -> np.ndarray:
        """Share of tokens on which each latent acts, (width,)."""
        return np.asarray(self.acting / self.tokens)


@torch.no_grad()
def measure(dictionary: Dictionary, parts: Iterable[Tensor], mean: Tensor) -> Fit:
    """Return what a dictionary makes of tokens.

    Args:
        dictionary: trained, or a control.
        parts: tokens (images, tokens, d) of some images each.
        mean: (d,) of all these tokens.
    """
    rows: list[tuple[float, float, float, float]] = []
    acting, tokens, pooled = torch.zeros(dictionary.width, dtype=torch.long), 0, []
    for part in parts:
        each = max(1, CHUNK // part.shape[1])
        for start in range(0, len(part), each):
            images = part[start : start + each].float()
            x = images.flatten(0, 1)
            codes = dictionary.encode(x)
            made, centred = dictionary.decode(codes), x - mean
            shape = images.shape[:2]
            errors = (made - x).double().square().sum(1).view(shape).sum(1)
            variances = centred.double().square().sum(1).view(shape).sum(1)
            cosines = torch.cosine_similarity(made - mean, centred, dim=1).view(shape).mean(1)
            values = codes.matrix(dictionary.width)
            l0 = np.diff(values.indptr).reshape(shape).mean(1)
            rows += zip(errors.tolist(), variances.tolist(), cosines.tolist(), l0.tolist(), strict=True)
            acting += codes.acting(dictionary.width)
            pooled.append(_pooled(values, len(images)))
            tokens += len(x)
    table = np.array(rows).T
    return Fit(table[0], table[1], table[2], table[3], acting.numpy(), tokens, vstack(pooled).tocsr())


def _pooled(values: csr_matrix, images: int) -> csr_matrix:
    """Mean over each image's tokens, which stand one after another: (images, width)."""
    each = values.shape[0] // images
    where = (
        np.full(values.shape[0], 1 / each, np.float32),
        np.arange(values.shape[0]),
        np.arange(0, len(values.indptr), each),
    )
    return csr_matrix(where, shape=(images, values.shape[0])) @ values
