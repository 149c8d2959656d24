"""The conditional logit: one weighting of features that says which of several alternatives belongs to an image.

P(c | image) = exp(w f(image, c)) / sum_c' exp(w f(image, c')) (D. McFadden, Frontiers in Econometrics, 1974). The
weights w are the same for all alternatives, so few images tell them. With two alternatives it is logistic regression
without intercept on the difference of their features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cad_exp.representations.probes.base import balanced_accuracy

STRENGTHS = tuple(float(10.0**power) for power in range(-4, 3))
STEPS = 100  # of Newton's method; a dozen are enough


@dataclass(frozen=True)
class Choice:
    """A fitted weighting. weights: (F,); centre: (C, F), what every alternative has on average; scale: (F,)."""

    weights: np.ndarray
    centre: np.ndarray
    scale: np.ndarray

    def values(self, features: np.ndarray) -> np.ndarray:
        """Return (N, C) for features (N, C, F); the largest is the choice."""
        found: np.ndarray = (features - self.centre) / self.scale @ self.weights
        return found


def fit(
    features: np.ndarray,
    chosen: np.ndarray,
    train: np.ndarray,
    validation: np.ndarray,
    strengths: Sequence[float] = STRENGTHS,
) -> Choice:
    """Fit on some images, and choose the penalty by others.

    Args:
        features: (N, C, F) of images and alternatives.
        chosen: (N,) the right alternative of each image.
        train: numbers of the images for the fit; each alternative's mean over them is taken away.
        validation: numbers of those whose balanced accuracy chooses the penalty; of equals, the strongest is taken.
        strengths: of the penalty, half of it times |w|^2, beside the mean of -log P.
    """
    centre = features[train].mean(0)
    scale = (features[train] - centre).std((0, 1))
    scale[scale < 1e-12] = 1.0
    x, best = (features[train] - centre) / scale, dict[float, Choice]()
    for strength in sorted(strengths, reverse=True):
        made = Choice(weights(x, chosen[train], strength), centre, scale)
        said = made.values(features[validation]).argmax(1)
        best.setdefault(balanced_accuracy(said, chosen[validation]), made)
    return best[max(best)]


def weights(x: np.ndarray, chosen: np.ndarray, strength: float) -> np.ndarray:
    """Return the weights (F,) that maximise the mean log-probability of what is chosen (N,), less strength/2 |w|^2.

    x: (N, C, F). By Newton's method, whose steps are halved while they do not improve; the maximum is the only one.
    """
    rows, w = np.arange(len(x)), np.zeros(x.shape[2])

    def gain(w: np.ndarray) -> float:
        values = x @ w
        top = values.max(1)
        total = np.log(np.exp(values - top[:, None]).sum(1)) + top
        return float((values[rows, chosen] - total).mean() - strength / 2 * w @ w)

    for _ in range(STEPS):
        values = x @ w
        shares = np.exp(values - values.max(1, keepdims=True))
        shares /= shares.sum(1, keepdims=True)
        mean = np.einsum("nc,ncf->nf", shares, x)
        slope = (x[rows, chosen] - mean).mean(0) - strength * w
        if np.abs(slope).max() < 1e-8:
            break
        apart = (x - mean[:, None]).reshape(-1, x.shape[2])
        curve = (shares.reshape(-1, 1) * apart).T @ apart / len(x) + strength * np.eye(x.shape[2])
        step, now = np.linalg.solve(curve, slope), gain(w)
        while np.abs(step).max() > 1e-12 and gain(w + step) < now:
            step = step / 2
        w = w + step
    return w
