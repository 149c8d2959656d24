"""The MLP probe: one hidden layer on pooled features. It also reads what no straight line separates."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from cad_exp.representations.probes.base import MEAN
from cad_exp.representations.probes.trained import TrainedProbe


class MlpProbe(TrainedProbe):
    """Linear, GELU, linear.

    width: of the hidden layer.
    """

    wants = MEAN

    def __init__(
        self,
        width: int = 128,
        rate: float = 3e-3,
        epochs: int = 60,
        patience: int = 8,
        batch: int = 64,
        decays: Sequence[float] = (0.01, 1.0),
    ):
        super().__init__(rate, epochs, patience, batch, decays)
        self.width = width

    def network(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        """Return the two layers."""
        return nn.Sequential(nn.Linear(shape[-1], self.width), nn.GELU(), nn.Linear(self.width, classes))
