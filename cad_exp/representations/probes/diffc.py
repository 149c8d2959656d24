"""The probe of Revelio's Diff-C: a small convolutional network on the whole map of a layer.

Kim, Thomas, Ghadiyaram, "Revelio" (arXiv 2411.16725) read frozen maps with four convolutions, trained by AdamW at a
rate of 1e-4 for 30 epochs. This head follows these facts in code of its own. Theirs has 40 million parameters for maps
of 1280 features; here `width` sets the size. Maps are halved between convolutions only while they have 8 or more
positions a side, so that a map of 4 x 4 is read as well.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from cad_exp.representations.probes.base import GRID
from cad_exp.representations.probes.trained import TrainedProbe
from cad_exp.utils.errors import UserError

CONVOLUTIONS = 4
HALVED = 8  # positions per side from which on a map is halved


class _Convolutions(nn.Module):
    def __init__(self, side: int, features: int, width: int, classes: int):
        super().__init__()
        layers: list[nn.Module] = []
        self.side = side
        for number in range(CONVOLUTIONS):
            layers += [nn.Conv2d(features if number == 0 else width, width, 3, padding=1, bias=False)]
            layers += [nn.BatchNorm2d(width), nn.ReLU()]
            if side >= HALVED:
                layers.append(nn.MaxPool2d(2))
                side //= 2
        self.layers, self.read = nn.Sequential(*layers), nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, classes) of maps (B, positions, features)."""
        square = x.transpose(1, 2).reshape(len(x), x.shape[-1], self.side, self.side)
        logits: Tensor = self.read(self.layers(square).mean((2, 3)))
        return logits


class DiffCProbe(TrainedProbe):
    """Four 3 x 3 convolutions with batch normalisation and ReLU, the mean over positions, and a linear layer.

    width: features of every convolution.
    """

    wants = GRID

    def __init__(
        self,
        width: int = 64,
        rate: float = 1e-3,
        epochs: int = 30,
        patience: int = 8,
        batch: int = 32,
        decays: Sequence[float] = (0.01, 0.1),
    ):
        super().__init__(rate, epochs, patience, batch, decays)
        self.width = width

    def network(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        """Return the convolutions.

        Raises:
            UserError: positions that are no square map, such as those of a text encoder.
        """
        side = round(shape[0] ** 0.5) if len(shape) == 2 else 0
        if not side or side * side != shape[0]:
            raise UserError(
                "probe=diffc reads square maps, and one of these hookpoints has none: take hookpoints of the denoiser, "
                "or probe=attention"
            )
        return _Convolutions(side, shape[1], self.width, classes)
