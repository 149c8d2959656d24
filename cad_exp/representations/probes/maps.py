"""What probes read at every place and timestep: the rows of an accuracy map, with predictions of the test images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from cad_exp.representations.probes.base import Fitted, Probe, Split, thinned

PIXELS = 16  # per side, of an image that is read as one vector


@dataclass(frozen=True)
class Reading:
    """One probe's result: which label it reads from where, and whether each test image was read rightly.

    right: (n,) bool; classes: (n,) int of the same test images. probe: as it was fitted.
    """

    label: str
    right: np.ndarray
    classes: np.ndarray
    number_of_classes: int
    probe: Fitted


@dataclass(frozen=True)
class Fit:
    """How probes are fitted.

    balanced: whether every class weighs alike in the fit. imbalance: every second class keeps 1 of so many training
    images. seed: of what is drawn. device: where networks are trained.
    """

    balanced: bool = True
    imbalance: int = 1
    seed: int = 0
    device: str = "cpu"


def readings(
    features: np.ndarray, labels: dict[str, np.ndarray], split: Split, probe: Probe, how: Fit = Fit()
) -> Iterator[Reading]:
    """Yield a probe's reading of every label.

    Images without a class are left out, and so are classes that the training, validation or test rows lack; a label
    of which less than two classes are left is not read.

    Args:
        features: (N, F) or (N, positions, F), as the probe wants them.
        labels: label -> class (N,) of each image, below 0 for none.
        split: of the images.
        probe: which classifier.
        how: it is fitted.
    """
    for label, classes in labels.items():
        own, kept = usable(classes, split)
        if len(kept) < 2:
            continue
        renumbered = np.full(int(classes.max(initial=0)) + 2, -1)
        renumbered[kept] = np.arange(len(kept))
        y = renumbered[classes]
        thin = thinned(y, own, how.imbalance, how.seed)
        fitted = probe.fit(features, y, thin, how.balanced, how.seed, how.device)
        yield Reading(label, fitted.predict(features[own.test]) == y[own.test], y[own.test], len(kept), fitted)


def usable(classes: np.ndarray, split: Split) -> tuple[Split, np.ndarray]:
    """Return the rows that have a class which every part of the split has, and these classes, sorted."""
    parts = (split.train, split.validation, split.test)
    kept = np.array(sorted(set.intersection(*({int(each) for each in classes[part] if each >= 0} for part in parts))))
    own = [part[np.isin(classes[part], kept)] for part in parts]
    return Split(*own), kept


def pixels(images: np.ndarray) -> np.ndarray:
    """Return images (N, H, W, 3) as PIXELS x PIXELS mean colours, (N, PIXELS^2, 3) float in 0..1.

    Images that are smaller keep their pixels.
    """
    side = images.shape[1] // PIXELS
    if side < 1:
        return np.asarray(images.reshape(len(images), -1, 3) / 255.0)
    cut = images[:, : side * PIXELS, : side * PIXELS].astype(np.float64)
    blocks = cut.reshape(len(images), PIXELS, side, PIXELS, side, 3).mean((2, 4))
    return np.asarray(blocks.reshape(len(images), -1, 3) / 255.0)


def principal(features: np.ndarray, rows: np.ndarray, components: int) -> np.ndarray:
    """Return features (N, F) along the first principal components of some rows, (N, components)."""
    mean = features[rows].mean(0)
    _, _, directions = np.linalg.svd(features[rows] - mean, full_matrices=False)
    projected: np.ndarray = (features - mean) @ directions[:components].T
    return projected
