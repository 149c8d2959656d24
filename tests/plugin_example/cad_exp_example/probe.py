"""A probe: an image has the class whose training images lie nearest on average."""

from dataclasses import dataclass

import numpy as np

from cad_exp.representations.probes.base import Probe, Split, balanced_accuracy


@dataclass
class Centres:
    """The mean features of every class (K, F), and how well they read the validation images."""

    means: np.ndarray
    order: float
    validation: float = 0.0
    strength: float = 0.0  # there is no penalty to choose

    def predict(self, features: np.ndarray) -> np.ndarray:
        return (np.abs(features[:, None] - self.means) ** self.order).sum(2).argmin(1)


class Nearest(Probe):
    """The nearest mean of a class; order 2 is the ordinary distance, 1 the sum of differences."""

    wants = "mean"

    def __init__(self, order: float = 2.0):
        self.order = order

    def fit(
        self,
        features: np.ndarray,
        classes: np.ndarray,
        split: Split,
        balanced: bool = True,
        seed: int = 0,
        device: str = "cpu",
    ) -> Centres:
        x, y = features[split.train], classes[split.train]
        found = Centres(np.stack([x[y == each].mean(0) for each in range(classes.max() + 1)]), self.order)
        said = found.predict(features[split.validation])
        found.validation = balanced_accuracy(said, classes[split.validation])
        return found
