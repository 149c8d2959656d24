"""The linear probe: ridge regression onto the classes, its strength chosen on a validation split.

1. Features are standardised by the training rows.
2. Every class is one target, 1 for its rows and 0 for the others; all are solved at once, in closed form.
3. The strength with the best balanced accuracy on the validation rows is kept; of equals, the strongest.

scikit-learn's RidgeClassifier gives the same predictions (a test holds them together). It is written here because one
decomposition serves all strengths: a map of layers x timesteps x labels takes seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cad_exp.representations.probes.base import MEAN, Probe, Split, balanced_accuracy, row_weights

STRENGTHS = tuple(float(10.0**power) for power in range(-2, 6))


@dataclass(frozen=True)
class Linear:
    """A fitted probe: features (N, F) to one value for each class, (N, K).

    strength: of the ridge penalty, for rows whose weights add up to their number. validation: its balanced accuracy.
    """

    weight: np.ndarray
    bias: np.ndarray
    strength: float
    validation: float

    def values(self, features: np.ndarray) -> np.ndarray:
        """Return one value for each row and class; the largest says what the probe reads."""
        found: np.ndarray = np.asarray(features, np.float64) @ self.weight + self.bias
        return found

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Return the class (N,) int of each row."""
        said: np.ndarray = self.values(features).argmax(1)
        return said


def fit(
    features: np.ndarray,
    classes: np.ndarray,
    split: Split,
    strengths: Sequence[float] = STRENGTHS,
    balanced: bool = True,
) -> Linear:
    """Fit a linear probe on the training rows, and choose its strength on the validation rows.

    Args:
        features: (N, F).
        classes: (N,) int, from 0.
        split: whose test rows are not looked at.
        strengths: of the penalty, to choose among.
        balanced: whether every class weighs alike in the fit, however many rows it has.

    Raises:
        UserError: a class without a training row.
    """
    x, y = np.asarray(features[split.train], np.float64), classes[split.train]
    number = int(classes.max()) + 1
    weights = row_weights(y, number, balanced)
    share = (weights / weights.sum())[:, None]
    mean = (share * x).sum(0)
    scale = x.std(0)
    scale[scale == 0] = 1.0  # a feature that never changes tells nothing, whatever it is divided by
    x = (x - mean) / scale
    targets = np.eye(number)[y]
    centre = (share * targets).sum(0)
    weighted = weights[:, None] * x
    eigenvalues, vectors = np.linalg.eigh(x.T @ weighted)
    projected = vectors.T @ (weighted.T @ (targets - centre))
    best: Linear | None = None
    for strength in sorted(strengths, reverse=True):
        slope = vectors @ (projected / (np.maximum(eigenvalues, 0.0) + strength)[:, None]) / scale[:, None]
        bias = centre - mean @ slope
        said = (np.asarray(features[split.validation], np.float64) @ slope + bias).argmax(1)
        accuracy = balanced_accuracy(said, classes[split.validation])
        if best is None or accuracy > best.validation:
            best = Linear(slope, bias, strength, accuracy)
    assert best is not None
    return best


class LinearProbe(Probe):
    """Ridge regression onto the classes.

    strengths: of the penalty, to choose among.
    """

    wants = MEAN

    def __init__(self, strengths: Sequence[float] = STRENGTHS):
        self.strengths = tuple(strengths)

    def fit(
        self,
        features: np.ndarray,
        classes: np.ndarray,
        split: Split,
        balanced: bool = True,
        seed: int = 0,
        device: str = "cpu",
    ) -> Linear:
        """Fit in closed form: nothing is drawn, and the device does not matter."""
        return fit(features, classes, split, self.strengths, balanced)
