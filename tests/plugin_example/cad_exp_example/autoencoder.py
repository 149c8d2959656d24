"""An architecture of a sparse autoencoder, and how its weights move."""

from torch import Tensor

from cad_exp.representations.sae.architectures import PerToken
from cad_exp.representations.sae.optimisers import Optimiser
from cad_exp.representations.sae.selection import TopK


class Generous(PerToken):
    """TopK with `times` k latents in training, so that fewer of them die, and k afterwards."""

    def __init__(self, k: int, times: int = 2):
        super().__init__(k)
        self.times = times

    def training(self) -> TopK:
        return TopK(self.times * self.k)


class Descent(Optimiser):
    """Plain gradient descent."""

    rate = 0.1

    def _move(self, name: str, gradient: Tensor, lr: float) -> None:
        self.weights[name].sub_(gradient, alpha=lr)
