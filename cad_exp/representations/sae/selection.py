"""Which latents of a token act: its k largest, the largest of a whole batch, or all above a threshold."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cad_exp.representations.sae.codes import Codes


@dataclass(frozen=True)
class TopK:
    """The k largest pre-activations of each token, as far as they are positive (Gao et al. 2406.04093)."""

    k: int

    def select(self, pre: Tensor) -> Codes:
        """Return k entries a token; those that are not positive have the value 0."""
        latents = largest(pre, min(self.k, pre.shape[1]))
        return Codes.even(latents, pre.gather(1, latents).relu())


def largest(pre: Tensor, k: int) -> Tensor:
    """Return where the k largest of each token are, (tokens, k), in any order."""
    if pre.device.type == "cpu" and pre.dtype.itemsize >= 4:  # in little more than half the time of torch's own
        places = np.argpartition(pre.detach().numpy(), pre.shape[1] - k, axis=1)[:, pre.shape[1] - k :]
        return torch.from_numpy(places)
    return pre.topk(k, sorted=False).indices


@dataclass(frozen=True)
class BatchTopK:
    """The k x tokens largest pre-activations of a batch, as far as they are positive (Bussmann et al. 2412.06410).

    A token's latents depend on its batch: this is for training. Afterwards `Threshold` takes its place.
    """

    k: int

    def select(self, pre: Tensor) -> Codes:
        """Return k entries a token on average."""
        return Threshold(max(self.smallest(pre), 0.0)).select(pre)

    def smallest(self, pre: Tensor) -> float:
        """Return the smallest pre-activation that is selected."""
        kept = min(self.k * len(pre), pre.numel())
        if pre.device.type == "cpu":  # many times faster than torch's own
            return float(np.partition(pre.detach().numpy().ravel(), pre.numel() - kept)[pre.numel() - kept])
        return float(pre.flatten().kthvalue(pre.numel() - kept + 1).values)


@dataclass(frozen=True)
class Threshold:
    """All pre-activations of at least a threshold, which is 0 or above: no token depends on another."""

    threshold: float

    def select(self, pre: Tensor) -> Codes:
        """Return as many entries of each token as reach the threshold."""
        chosen = (pre >= self.threshold) & (pre > 0)
        rows, latents = chosen.nonzero(as_tuple=True)
        counts = torch.bincount(rows, minlength=len(pre))
        return Codes(latents, pre[chosen], counts.cumsum(0) - counts)
