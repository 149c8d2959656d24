"""The linear probe against scikit-learn, and on data whose answer is known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import RidgeClassifier
from sklearn.metrics import balanced_accuracy_score
from sklearn.preprocessing import StandardScaler

from cad_exp.representations.probes.base import Split, balanced_accuracy, split_images
from cad_exp.representations.probes.linear import fit
from cad_exp.utils.errors import UserError


def blobs(number: int, classes: int, features: int, spread: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = np.concatenate([np.arange(classes), rng.integers(0, classes, number - classes)])
    centres = rng.normal(size=(classes, features))
    return centres[y] + spread * rng.normal(size=(number, features)), y


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("strength", [0.01, 10.0, 1000.0])
def test_it_reads_what_scikit_learn_reads(classes: int, strength: float):
    """With equal weights the standardisation is scikit-learn's, too."""
    x, y = blobs(300, classes, 20, 1.5)
    split = split_images(300, 3)
    probe = fit(x, y, split, [strength], balanced=False)
    scaler = StandardScaler().fit(x[split.train])
    theirs = RidgeClassifier(alpha=strength).fit(scaler.transform(x[split.train]), y[split.train])
    expected = theirs.decision_function(scaler.transform(x[split.test]))
    found = probe.values(x[split.test])
    if classes == 2:  # theirs is one value, of targets -1 and 1
        np.testing.assert_allclose(found[:, 1] - found[:, 0], expected, rtol=1e-6, atol=1e-9)
    else:
        np.testing.assert_allclose(2 * found - 1, expected, rtol=1e-6, atol=1e-9)
    assert (probe.predict(x[split.test]) == theirs.predict(scaler.transform(x[split.test]))).all()


def test_classes_weigh_alike_as_in_scikit_learn():
    x, y = blobs(400, 2, 5, 1.0)
    keep = np.concatenate([np.flatnonzero(y == 0), np.flatnonzero(y == 1)[:20]])
    x, y = x[keep], y[keep]
    split = Split(np.arange(len(y)), np.arange(len(y)), np.arange(len(y)))
    probe = fit(x, y, split, [5.0], balanced=True)
    scaled = x / x.std(0)
    theirs = RidgeClassifier(alpha=5.0, class_weight="balanced").fit(scaled, y)
    found = probe.values(x)
    np.testing.assert_allclose(found[:, 1] - found[:, 0], theirs.decision_function(scaled), rtol=1e-6, atol=1e-9)


def test_the_strength_is_chosen_on_the_validation_rows():
    """Two informative features among 100 of noise: a strong penalty is right, and the test rows do not matter."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 200)
    x = rng.normal(size=(200, 100))
    x[:, :2] += 1.5 * (2 * y[:, None] - 1)
    split = split_images(200, 0)
    probe = fit(x, y, split, [1e-6, 100.0])
    assert probe.strength == 100.0
    changed = x.copy()
    changed[split.test] = rng.normal(size=(len(split.test), 100))
    assert np.array_equal(fit(changed, y, split, [1e-6, 100.0]).weight, probe.weight)


def test_a_constant_feature_is_harmless():
    x, y = blobs(100, 2, 3, 0.1)
    split = split_images(100, 0)
    with_constant = np.concatenate([x, np.full((100, 1), 7.0)], 1)
    one, other = fit(x, y, split), fit(with_constant, y, split)
    assert (one.predict(x) == other.predict(with_constant)).all() and np.isfinite(other.weight).all()


def test_balanced_accuracy_by_hand():
    """Class 0: two of four; class 1: one of one. Mean .75, where the plain accuracy is .6."""
    assert balanced_accuracy(np.array([0, 0, 1, 1, 1]), np.array([0, 0, 0, 0, 1])) == 0.75


@given(st.integers(10, 60), st.integers(2, 4), st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_balanced_accuracy_is_scikit_learns(number: int, classes: int, seed: int):
    rng = np.random.default_rng(seed)
    y = np.concatenate([np.arange(classes), rng.integers(0, classes, number)])
    said = rng.integers(0, classes, len(y))
    assert balanced_accuracy(said, y) == pytest.approx(balanced_accuracy_score(y, said))


@given(st.integers(10, 500), st.integers(0, 100))
def test_no_image_is_in_two_parts_of_a_split(number: int, seed: int):
    split = split_images(number, seed)
    parts = np.concatenate([split.train, split.validation, split.test])
    assert sorted(parts) == list(range(number)) and len(split.train) == round(0.6 * number)


def test_a_class_without_training_rows_is_refused():
    with pytest.raises(UserError, match="class 1 has no training image"):
        fit(np.ones((4, 2)), np.array([0, 0, 1, 1]), Split(np.array([0, 1]), np.array([2]), np.array([3])))
