"""Probes that are small networks: trained by AdamW, stopped early, their weight decay chosen on validation rows.

1. Features are standardised by the training rows (and positions).
2. For each weight decay a network is trained on mini-batches with the cross-entropy, every class weighing alike.
3. After each epoch the cross-entropy of the validation rows is taken. The weights with the lowest are kept, and
   training stops once it has not fallen for `patience` epochs.
4. The weight decay with the best balanced accuracy on the validation rows is kept; of equals, the strongest.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cad_exp.representations.probes.base import Probe, Split, balanced_accuracy, row_weights

READ = 1024  # rows of one forward pass without gradients


@dataclass(frozen=True)
class Network:
    """A trained network with the standardisation of its features."""

    network: nn.Module
    mean: Tensor
    scale: Tensor
    strength: float
    validation: float = math.nan

    @torch.no_grad()
    def values(self, features: np.ndarray) -> Tensor:
        """Return logits (N, K) on the CPU."""
        parts = [self.network(self.standardised(part)) for part in _parts(features, READ)]
        return torch.cat(parts).float().cpu()

    def standardised(self, features: np.ndarray) -> Tensor:
        """Return features as the network takes them, on its device."""
        x = torch.from_numpy(np.ascontiguousarray(features, np.float32)).to(self.mean.device)
        return (x - self.mean) / self.scale

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Return the class (N,) int of each row."""
        said: np.ndarray = self.values(features).argmax(1).numpy()
        return said


class TrainedProbe(Probe):
    """A small network; a subclass says which.

    rate: of AdamW. epochs: at most. patience: epochs without progress on the validation rows, after which training
    stops. batch: rows of a step. decays: weight decays to choose among.
    """

    def __init__(self, rate: float, epochs: int, patience: int, batch: int, decays: Sequence[float]):
        self.rate, self.epochs, self.patience, self.batch = rate, epochs, patience, batch
        self.decays = tuple(sorted(decays, reverse=True))

    @abstractmethod
    def network(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        """Return an untrained network from features (N, *shape) to logits (N, classes); drawn from torch's seed."""

    def fit(
        self,
        features: np.ndarray,
        classes: np.ndarray,
        split: Split,
        balanced: bool = True,
        seed: int = 0,
        device: str = "cpu",
    ) -> Network:
        """Train a network for each weight decay, and return the best; torch's own generator is left as it was."""
        best: Network | None = None
        with torch.random.fork_rng(devices=[]):
            for decay in self.decays:
                torch.manual_seed(seed)
                found = self._trained(features, classes, split, balanced, decay, device)
                if best is None or found.validation > best.validation:
                    best = found
        assert best is not None
        return best

    def _trained(
        self, features: np.ndarray, classes: np.ndarray, split: Split, balanced: bool, decay: float, device: str
    ) -> Network:
        y, number = classes[split.train], int(classes.max()) + 1
        weights = torch.from_numpy(row_weights(y, number, balanced)).float().to(device)
        network = self.network(features.shape[1:], number).to(device)
        made = Network(network, *_moments(features[split.train], device), decay)
        x, targets = made.standardised(features[split.train]), torch.from_numpy(y).to(device)
        held, wanted = features[split.validation], torch.from_numpy(classes[split.validation])
        weighing = torch.from_numpy(row_weights(classes[split.validation], number, balanced)).float()
        optimiser = torch.optim.AdamW(network.parameters(), lr=self.rate, weight_decay=decay)
        lowest, kept, since = math.inf, _copy(network), 0
        for _ in range(self.epochs):
            self._epoch(network, optimiser, x, targets, weights)
            network.eval()
            loss = float(_loss(made.values(held), wanted, weighing))
            since += 1
            if loss < lowest:
                lowest, kept, since = loss, _copy(network), 0
            if since >= self.patience:
                break
        network.load_state_dict(kept)
        network.eval().requires_grad_(False)
        reached = balanced_accuracy(made.predict(held), classes[split.validation])
        return Network(network, made.mean, made.scale, decay, reached)

    def _epoch(
        self, network: nn.Module, optimiser: torch.optim.Optimizer, x: Tensor, targets: Tensor, weights: Tensor
    ) -> None:
        """Take one step for each mini-batch, in a new order; a last batch of a single row joins the one before."""
        network.train()
        parts = list(torch.randperm(len(x)).to(x.device).split(self.batch))
        if len(parts) > 1 and len(parts[-1]) == 1:
            parts[-2:] = [torch.cat(parts[-2:])]
        for rows in parts:
            optimiser.zero_grad()
            _loss(network(x[rows]), targets[rows], weights[rows]).backward()
            optimiser.step()


def _loss(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    return (F.cross_entropy(logits, targets, reduction="none") * weights).mean()


def _moments(features: np.ndarray, device: str) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation (F,) over rows and positions."""
    flat = features.reshape(-1, features.shape[-1])
    mean, scale = flat.mean(0, dtype=np.float64), flat.std(0, dtype=np.float64)
    scale[scale < 1e-12 * max(1.0, float(np.abs(mean).max(initial=0)))] = 1.0  # it never changes, and tells nothing
    found = [torch.from_numpy(np.asarray(each, np.float32)).to(device) for each in (mean, scale)]
    return found[0], found[1]


def _parts(features: np.ndarray, rows: int) -> list[np.ndarray]:
    return [features[start : start + rows] for start in range(0, len(features), rows)]


def _copy(network: nn.Module) -> dict[str, Tensor]:
    return {name: each.detach().clone() for name, each in network.state_dict().items()}
