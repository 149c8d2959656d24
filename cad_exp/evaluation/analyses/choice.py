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

    x: (N, C, F).
    """
    from scipy.optimize import minimize
    from scipy.special import logsumexp, softmax

    rows = np.arange(len(x))

    def loss(w: np.ndarray) -> tuple[float, np.ndarray]:
        values = x @ w
        right = (values[rows, chosen] - logsumexp(values, 1)).mean()
        wanted = -softmax(values, 1)
        wanted[rows, chosen] += 1
        slope = np.einsum("nc,ncf->f", wanted, x) / len(x)
        return strength / 2 * w @ w - right, strength * w - slope

    found: np.ndarray = minimize(loss, np.zeros(x.shape[2]), jac=True, method="L-BFGS-B", options={"maxiter": 300}).x
    return found
