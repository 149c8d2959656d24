"""A linear map from features of images to the text encoder's space, and names of classes read by it.

1. Ridge regression from standardised features to the embeddings of the images' captions.
2. An image is called by the name whose embedding has the largest cosine with what the map gives. Both are centred: the
   map by its captions, the names by all of them, so that what all texts share decides nothing.

A class needs no image for that: its name is enough. DiffDis (arXiv 2308.09306) reads a diffusion model by such a space.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cad_exp.representations.prototypes import normalised

STRENGTHS = tuple(float(10.0**power) for power in range(0, 6))


@dataclass(frozen=True)
class TextMap:
    """Features (N, F) to what their captions' embeddings are beyond the mean caption, (N, E)."""

    mean: np.ndarray
    weight: np.ndarray

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Return the point (N, E) of each image in the centred space of texts."""
        found: np.ndarray = (features - self.mean) @ self.weight
        return found

    def called(self, features: np.ndarray, names: np.ndarray) -> np.ndarray:
        """Return the cosine (N, C) of images and embeddings of names (C, E)."""
        found: np.ndarray = normalised(self(features)) @ normalised(names - names.mean(0)).T
        return found


def fit(features: np.ndarray, texts: np.ndarray, strengths: Sequence[float] = STRENGTHS) -> list[TextMap]:
    """Return the ridge regression of texts (N, E) on features (N, F) for each strength of the penalty."""
    mean, scale = features.mean(0), features.std(0)
    scale = np.where(scale > 0, scale, 1.0)
    x = (features - mean) / scale
    values, vectors = np.linalg.eigh(x.T @ x)
    projected = vectors.T @ (x.T @ (texts - texts.mean(0)))
    values = np.maximum(values, 0.0)[:, None]
    return [TextMap(mean, vectors @ (projected / (values + each)) / scale[:, None]) for each in strengths]
