"""Architectures by name: what is selected in training and afterwards, and which prefixes must do alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cad_exp.representations.sae.autoencoder import Selects
from cad_exp.representations.sae.registries import ARCHITECTURES
from cad_exp.representations.sae.selection import BatchTopK, Threshold, TopK
from cad_exp.utils.errors import UserError


class Architecture:
    """What one kind of sparse autoencoder selects. k: latents a token, on average at least."""

    threshold = False  # whether a threshold, learned beside, takes the place of the selection after training

    def __init__(self, k: int):
        self.k = k

    def training(self) -> Selects:
        """Return how latents are selected in training."""
        raise NotImplementedError

    def trained(self, threshold: float) -> Selects:
        """Return how latents are selected afterwards; threshold: the one learned beside."""
        raise NotImplementedError

    def prefixes(self, width: int) -> list[int]:
        """Return of how many latents, counted from the first, each reconstruction that counts may make use."""
        return [width]


class PerToken(Architecture):
    """TopK: the k largest of each token (Makhzani & Frey 1312.5663; Gao et al. 2406.04093)."""

    def training(self) -> Selects:
        """Return TopK."""
        return TopK(self.k)

    def trained(self, threshold: float) -> Selects:
        """Return TopK."""
        return TopK(self.k)


class PerBatch(Architecture):
    """BatchTopK: tokens share k latents each, and a threshold makes them independent (Bussmann et al. 2412.06410)."""

    threshold = True

    def training(self) -> Selects:
        """Return BatchTopK."""
        return BatchTopK(self.k)

    def trained(self, threshold: float) -> Selects:
        """Return the learned threshold."""
        return Threshold(threshold)


class Matryoshka(PerBatch):
    """BatchTopK of which each prefix of the dictionary must reconstruct alone (Bussmann et al. 2503.17547).

    shares: of the width, the prefixes; the last is the whole.
    Raises UserError for shares that do not rise to 1.
    """

    def __init__(self, k: int, shares: Sequence[float] = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)):
        super().__init__(k)
        self.shares = list(shares)
        if not self.shares or self.shares[-1] != 1 or sorted(set(self.shares)) != self.shares or self.shares[0] <= 0:
            raise UserError(f"shares={self.shares} of the width: use numbers above 0 that rise to 1")

    def prefixes(self, width: int) -> list[int]:
        """Return the prefixes' lengths, each at least 1."""
        return sorted({max(1, round(width * share)) for share in self.shares})


def make_architecture(settings: dict[str, Any]) -> Architecture:
    """Return the architecture that a config chooses by name, with its settings."""
    found: Architecture = ARCHITECTURES.make(settings)
    return found
