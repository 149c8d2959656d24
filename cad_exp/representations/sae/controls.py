"""The dictionaries that a trained autoencoder must beat: random directions, principal components, raw channels.

A random or frozen dictionary can be as pure as a trained one (Korznikov et al. 2602.14111), and where the rank of a
site is low, k principal components explain as much: without these rows a result says nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cad_exp.representations.sae.codes import Codes
from cad_exp.representations.sae.moments import Moments
from cad_exp.representations.sae.selection import TopK


@dataclass(frozen=True)
class RandomDictionary:
    """Random unit directions with TopK, as wide as the autoencoder.

    x' = mean + gain sum_j z_j d_j with z = TopK(d (x - mean)); the gain is the one number that is fitted.
    """

    directions: Tensor
    mean: Tensor
    k: int
    gain: float = 1.0

    @classmethod
    def fitted(cls, width: int, k: int, seed: int, moments: Moments, samples: Sequence[Tensor]) -> RandomDictionary:
        """Draw directions, and fit the gain by least squares on samples (tokens, d) of the training tokens."""
        drawn = torch.randn(width, len(moments.mean), generator=torch.Generator().manual_seed(seed))
        drawn /= drawn.norm(dim=1, keepdim=True)
        plain, above, below = cls(drawn, moments.mean.float(), k), 0.0, 0.0
        for x in samples:
            made = plain.decode(plain.encode(x)) - plain.mean
            above, below = above + float((made * (x - plain.mean)).sum()), below + float(made.square().sum())
        return cls(drawn, plain.mean, k, above / below if below else 1.0)

    @property
    def width(self) -> int:
        """Number of directions."""
        return len(self.directions)

    @property
    def W_dec(self) -> Tensor:
        """What a latent adds for each unit of its code, (width, d): the same name as an autoencoder's."""
        return self.gain * self.directions

    def encode(self, x: Tensor) -> Codes:
        """Return the k largest projections of each token, as far as they are positive."""
        return TopK(self.k).select((x - self.mean) @ self.directions.T)

    def decode(self, codes: Codes) -> Tensor:
        """Return the tokens that codes stand for."""
        return self.mean + self.gain * codes.sums(self.directions)


@dataclass(frozen=True)
class Components:
    """Orthogonal directions, of which each token keeps the first `kept`; both signs count as a latent of their own.

    With the axes as directions these are the raw channels, of which each token keeps the largest.
    """

    directions: Tensor
    mean: Tensor
    kept: int
    largest: bool = False

    @classmethod
    def principal(cls, moments: Moments, k: int) -> Components:
        """Return the principal components: no k directions explain more of the variance of the training tokens."""
        return cls(moments.directions.float(), moments.mean.float(), min(k, len(moments.mean)))

    @classmethod
    def channels(cls, moments: Moments, k: int) -> Components:
        """Return the raw channels, of which each token keeps those k that are furthest from their mean."""
        return cls(torch.eye(len(moments.mean)), moments.mean.float(), min(k, len(moments.mean)), largest=True)

    @property
    def width(self) -> int:
        """Twice the number of directions."""
        return 2 * len(self.directions)

    def encode(self, x: Tensor) -> Codes:
        """Return the kept projections of each token, none below 0: latent 2 i is direction i, 2 i + 1 its opposite."""
        projected = (x - self.mean) @ self.directions.T
        if self.largest:
            places = projected.abs().topk(self.kept).indices
        else:
            places = torch.arange(self.kept).expand(len(x), -1)
        values = projected.gather(1, places)
        return Codes.even(2 * places + (values < 0), values.abs())

    def decode(self, codes: Codes) -> Tensor:
        """Return the tokens that codes stand for."""
        return self.mean + codes.sums(torch.stack([self.directions, -self.directions], 1).flatten(0, 1))
