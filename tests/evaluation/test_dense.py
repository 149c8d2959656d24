"""Linear classifiers of positions: they find what the features tell, and no more than the place without features."""

import numpy as np

from cad_exp.evaluation.dense import segmented
from cad_exp.representations.probes.base import Split

SIDE, SIZE = 4, 16


def world(count: int):
    """Squares of two classes on a grid; feature 0 says that a position is covered, feature 1 which class it is."""
    rng = np.random.default_rng(0)
    y, masks = rng.integers(2, size=count), np.zeros((count, SIZE, SIZE), bool)
    features = 0.05 * rng.normal(size=(count, SIDE * SIDE, 3))
    for n in range(count):
        row, column = rng.integers(3, size=2)
        masks[n, 4 * row : 4 * row + 8, 4 * column : 4 * column + 8] = True
        covered = np.zeros((SIDE, SIDE), bool)
        covered[row : row + 2, column : column + 2] = True
        features[n, covered.ravel(), 0] += 1
        features[n, covered.ravel(), 1] += 1 if y[n] else -1
    return features.astype(np.float32), y, masks


def test_features_that_tell_are_read_and_the_place_alone_is_not_enough():
    features, y, masks = world(60)
    split = Split(np.arange(30), np.arange(30, 40), np.arange(40, 60))
    by_class = segmented(features, y, masks, split)
    alone = segmented(features[..., :0], np.zeros_like(y), masks, split)
    assert by_class.ceiling == alone.ceiling and 0.8 < by_class.ceiling < 1  # squares lose their corners
    assert by_class.masks.shape == (20, SIZE, SIZE) and by_class.overlap.mean() > 0.75
    assert alone.overlap.mean() < 0.5 and len(np.unique(alone.masks, axis=0)) == 1


def test_a_class_without_a_training_image_is_never_said():
    features, y, masks = world(60)
    y[:40], y[40:] = y[:40] * 2, 1  # classes 0 and 2 to learn from; only class 1 is shown
    found = segmented(features, y, masks, Split(np.arange(30), np.arange(30, 40), np.arange(40, 60)))
    assert not found.masks.any() and (found.overlap == 0).all()
