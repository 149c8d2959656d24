"""Mean, covariance and effective rank of tokens, added up shard by shard."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from cad_exp.utils.errors import UserError


class Moments:
    """The mean (d,) and covariance (d, d) fp64 of tokens."""

    def __init__(self, parts: Iterable[Tensor]):
        number, total, products = 0, torch.zeros(0), torch.zeros(0)
        for x in parts:
            x = x.double()
            number += len(x)
            total = x.sum(0) if not len(total) else total + x.sum(0)
            products = x.T @ x if not len(products) else products + x.T @ x
        if number < 2:
            raise UserError("fewer than two tokens: take more images")
        self.number, self.mean = number, total / number
        self.covariance = products / number - torch.outer(self.mean, self.mean)
        values, vectors = torch.linalg.eigh(self.covariance)
        self.variances, self.directions = values.flip(0).clamp_min(0), vectors.flip(1).T

    @property
    def scale(self) -> float:
        """The root of the mean variance of a feature: what tokens are divided by."""
        return float(self.variances.mean().sqrt().clamp_min(torch.finfo(torch.float32).tiny))

    @property
    def effective_rank(self) -> float:
        """How many directions share the variance: (sum of variances)^2 / sum of their squares, 1 to d."""
        return float(self.variances.sum() ** 2 / self.variances.square().sum().clamp_min(1e-300))


def width_of(asked: int | str, moments: Moments, expansion: int = 16) -> int:
    """Return a dictionary's width.

    Args:
        asked: a number of latents; "64x", so many times the features; or "auto", `expansion` times the effective rank,
            rounded up to a power of two. On sites of low rank most of a wider dictionary would die.
        moments: of the tokens.
        expansion: for "auto".
    """
    if asked == "auto":
        return int(2 ** torch.tensor(expansion * moments.effective_rank).log2().ceil())
    if isinstance(asked, str) and asked.endswith("x"):
        return int(asked.removesuffix("x")) * len(moments.mean)
    return int(asked)
