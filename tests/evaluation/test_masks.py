"""Maps beside masks: the pointing game and overlaps by hand, and beside scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import jaccard_score

from cad_exp.evaluation.masks import best_threshold, enlarged, overlaps, pointed, stretched

MAP = np.array([[[0.0, 1.0], [2.0, 4.0]]])
MASK = np.array([[[False, False], [True, True]]])


def test_by_hand():
    assert stretched(MAP).tolist() == [[[0.0, 0.25], [0.5, 1.0]]]
    assert stretched(np.full((1, 2, 2), 3.0)).tolist() == [[[0.0, 0.0], [0.0, 0.0]]]
    assert pointed(MAP, MASK).tolist() == [1.0] and pointed(-MAP, MASK).tolist() == [0.0]
    assert overlaps(MAP > 0.5, MASK).tolist() == [pytest.approx(2 / 3)]
    assert overlaps(np.zeros_like(MASK), np.zeros_like(MASK)).tolist() == [1.0]
    assert best_threshold(stretched(MAP), MASK, (0.1, 0.3, 0.4, 0.6)) == 0.3  # 0.3 and 0.4 are right; the lower


def test_overlaps_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    said, true = rng.random((5, 6, 6)) > 0.5, rng.random((5, 6, 6)) > 0.5
    wanted = [jaccard_score(b.ravel(), a.ravel()) for a, b in zip(said, true, strict=True)]
    assert overlaps(said, true) == pytest.approx(wanted)


def test_a_map_is_enlarged_about_its_own_middle():
    wide = enlarged(np.array([[[0.0, 1.0], [0.0, 1.0]]]), (4, 4))
    assert wide.shape == (1, 4, 4) and wide[0, 0].tolist() == [0.0, 0.25, 0.75, 1.0]
    assert wide[0, :, ::-1] == pytest.approx(1 - wide[0])
