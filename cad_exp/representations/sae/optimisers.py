"""How weights move: annealed Adam, schedule-free sign descent, plain Adam. A learning rate of None goes by the width.

All keep all they know in tensors, so that a training continues after a kill to the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from cad_exp.representations.sae.registries import OPTIMISERS

WIDTH = 2**14  # for which rates are said
RISE = 0.05  # share of the training in which an annealed rate rises
Weights = dict[str, Tensor]


class Optimiser:
    """Moves weights by gradients.

    weights: where it starts. lr: the rate; None: `rate` times sqrt(WIDTH / width). warmup: steps in which it rises.
    """

    rate: float

    def __init__(self, weights: Weights, lr: float | None = None, warmup: int = 0):
        width = len(weights["W_enc"])
        self.lr, self.warmup, self.steps = lr or self.rate * (WIDTH / width) ** 0.5, warmup, 0
        self.weights = {name: tensor.clone() for name, tensor in weights.items()}

    def point(self) -> Weights:
        """Return the weights at which the next gradient is to be taken."""
        return self.weights

    def result(self) -> Weights:
        """Return the weights that have been learned so far."""
        return self.weights

    def step(self, gradients: Weights, done: float = 0.5) -> None:
        """Move the weights that have a gradient, and keep the decoder's rows at length 1.

        done: share of the training that is over in the middle of this step, above 0 and below 1.
        """
        self.steps += 1
        lr = self.lr * min(1.0, self.steps / max(1, self.warmup)) * self._annealed(done)
        for name, gradient in gradients.items():
            self._move(name, gradient, lr)
            _normalise(name, self.weights[name])
            self._moved(name)

    def _annealed(self, done: float) -> float:
        """Return the rate as a share of the highest."""
        return 1.0

    def _move(self, name: str, gradient: Tensor, lr: float) -> None:
        """Move the weights of this name, in place."""
        raise NotImplementedError

    def _moved(self, name: str) -> None:
        """Do what is to be done when the weights of this name have moved."""

    def _moments(self) -> Iterator[tuple[str, Weights]]:
        """Yield what it keeps beside the weights, by name."""
        return iter(())

    def state(self) -> Weights:
        """Return all it knows but the number of steps."""
        kept = [("weights", self.weights), *self._moments()]
        return {f"{group}.{name}": tensor for group, tensors in kept for name, tensor in tensors.items()}

    def restore(self, state: Weights, steps: int) -> None:
        """Go on from a `state` after so many steps."""
        self.steps = steps
        for group, tensors in [("weights", self.weights), *self._moments()]:
            for name in tensors:
                tensors[name].copy_(state[f"{group}.{name}"])


class ScheduleFreeSign(Optimiser):
    """Sign descent without a schedule: the average of all iterates is the result (Defazio et al. 2405.15682).

    z <- z - lr sign(gradient at y), x <- (1 - c) x + c z with c = lr^2 / sum lr^2, y = momentum x + (1 - momentum) z.
    sparsify trains so by default, with momentum .95.
    """

    rate = 2.5e-3

    def __init__(self, weights: Weights, lr: float | None = None, warmup: int = 0, momentum: float = 0.95):
        super().__init__(weights, lr, warmup)
        self.momentum, self.average = momentum, {name: tensor.clone() for name, tensor in weights.items()}

    def point(self) -> Weights:
        """Return y."""
        return {name: torch.lerp(z, self.average[name], self.momentum) for name, z in self.weights.items()}

    def result(self) -> Weights:
        """Return x."""
        return self.average

    def _move(self, name: str, gradient: Tensor, lr: float) -> None:
        self.weights[name].sub_(gradient.sign(), alpha=lr)

    def _moved(self, name: str) -> None:
        self.average[name].lerp_(self.weights[name], self._share())

    def _share(self) -> float:
        """c, with the squares of a rate that rises linearly and then stays."""
        rates = [min(1.0, step / max(1, self.warmup)) ** 2 for step in range(1, min(self.steps, self.warmup) + 1)]
        return (rates[-1] if self.steps <= self.warmup else 1.0) / (sum(rates) + max(0, self.steps - self.warmup))

    def _moments(self) -> Iterator[tuple[str, Weights]]:
        yield "average", self.average


class Adam(Optimiser):
    """Adam (Kingma & Ba 1412.6980), betas .9 and .999."""

    rate = 5e-4
    betas = (0.9, 0.999)

    def __init__(self, weights: Weights, lr: float | None = None, warmup: int = 0):
        super().__init__(weights, lr, warmup)
        self.first = {name: torch.zeros_like(tensor) for name, tensor in weights.items()}
        self.second = {name: torch.zeros_like(tensor) for name, tensor in weights.items()}

    def _move(self, name: str, gradient: Tensor, lr: float) -> None:
        one, two = self.betas
        first = self.first[name].lerp_(gradient, 1 - one)
        second = self.second[name].mul_(two).addcmul_(gradient, gradient, value=1 - two)
        root = (second / (1 - two**self.steps)).sqrt_().add_(1e-8)
        self.weights[name].addcdiv_(first, root, value=-lr / (1 - one**self.steps))

    def _moments(self) -> Iterator[tuple[str, Weights]]:
        yield "first", self.first
        yield "second", self.second


class Annealed(Adam):
    """Adam with a short memory, whose rate rises for a twentieth of the training and then falls to 0 in a line.

    Of what was tried for trainings of some hundred steps, this left the least (benchmarks/README.md).
    """

    rate = 3.5e-3
    betas = (0.7, 0.95)

    def _annealed(self, done: float) -> float:
        return min(done / RISE, (1 - done) / (1 - RISE))


def make_optimiser(weights: Weights, settings: dict[str, Any]) -> Optimiser:
    """Return the optimiser that a config chooses by name, with its settings."""
    own = {key: value for key, value in settings.items() if key != "name"}
    found: Optimiser = OPTIMISERS.get(settings["name"])(weights, **own)
    return found


def _normalise(name: str, tensor: Tensor) -> None:
    """Only directions count in a decoder: how far a latent moves a token is its value's to say."""
    if name == "W_dec":
        tensor.div_(tensor.norm(dim=1, keepdim=True).clamp_min_(1e-12))
