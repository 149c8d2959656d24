"""The attention probe: positions are averaged with weights that a learned query gives them, then read linearly.

    weights = softmax over positions of <query, x_p> / sqrt(F)        values = sum over p of weights_p x_p

The query begins at 0, so training begins at the plain mean. One query and one linear layer are as light as the linear
probe, and read what sits in a part of the image. It is the attention head in the zoo of Mukhopadhyay et al.,
"Do text-free diffusion models learn discriminative visual representations?" (arXiv 2311.17921), without its layers.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cad_exp.representations.probes.base import GRID
from cad_exp.representations.probes.trained import TrainedProbe


class _Pooled(nn.Module):
    def __init__(self, features: int, classes: int):
        super().__init__()
        self.query = nn.Parameter(torch.zeros(features))
        self.read = nn.Linear(features, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, classes) of maps (B, positions, features)."""
        weights = (x @ self.query / x.shape[-1] ** 0.5).softmax(1)
        logits: Tensor = self.read((weights[..., None] * x).sum(1))
        return logits


class AttentionProbe(TrainedProbe):
    """One learned query pools the positions of a map, and a linear layer reads what it pooled."""

    wants = GRID

    def __init__(
        self,
        rate: float = 0.01,
        epochs: int = 60,
        patience: int = 8,
        batch: int = 64,
        decays: Sequence[float] = (0.01, 1.0),
    ):
        super().__init__(rate, epochs, patience, batch, decays)

    def network(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        """Return the query and the linear layer."""
        return _Pooled(shape[-1], classes)
