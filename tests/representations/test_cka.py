"""CKA: beside its definition term by term, its invariances, its value by chance, and blocks by hand."""

import itertools

import numpy as np
import pytest
from sklearn.metrics.pairwise import linear_kernel
from sklearn.preprocessing import KernelCenterer

from cad_exp.representations.cka import alignment, blocks

RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((9, 4)), RNG.standard_normal((9, 6))
Y[:, :4] += X


def hsic(x: np.ndarray, y: np.ndarray) -> float:
    """Song et al.'s unbiased estimator as a sum over all four different images: the definition, without algebra."""
    k, m = ((z - z.mean(0)) @ (z - z.mean(0)).T for z in (x, y))
    terms = [k[i, j] * (m[i, j] + m[q, r] - 2 * m[i, q]) for i, j, q, r in itertools.permutations(range(len(x)), 4)]
    return float(np.mean(terms))


def cka(x: np.ndarray, y: np.ndarray) -> float:
    return hsic(x, y) / np.sqrt(hsic(x, x) * hsic(y, y))


def test_it_is_the_mean_over_all_four_different_images():
    assert alignment([X], [Y]).values[0, 0] == pytest.approx(cka(X, Y))


def test_each_left_out_value_is_that_of_the_other_images():
    found = alignment([X], [Y]).without[0, 0]
    for number in (0, 4, 8):
        rest = np.arange(9) != number
        assert found[number] == pytest.approx(cka(X[rest], Y[rest]))


def test_rotation_scale_shift_and_order_of_features_change_nothing():
    turn = np.linalg.qr(RNG.standard_normal((4, 4)))[0]
    found = alignment([X], [X, 1e-6 * X @ turn + 3, X[:, ::-1]]).values
    assert found == pytest.approx(np.ones((1, 3)))


def test_of_many_images_it_is_the_biased_one_by_scikit_learn_s_centring():
    x = RNG.standard_normal((1500, 3))
    y = np.concatenate([x[:, :2], RNG.standard_normal((1500, 2))], 1)
    k, m = (KernelCenterer().fit_transform(linear_kernel(each)) for each in (x, y))
    biased = (k * m).sum() / np.sqrt((k * k).sum() * (m * m).sum())
    assert alignment([x], [y]).values[0, 0] == pytest.approx(biased, abs=0.01)


def test_unrelated_features_are_at_zero_however_many():
    x = RNG.standard_normal((40, 500))
    values = [alignment([x], [x[RNG.permutation(40)]]).values[0, 0] for _ in range(30)]
    assert abs(np.mean(values)) < 0.02  # the biased estimator gives .9 here


def test_features_that_never_change_are_like_nothing():
    found = alignment([X, np.ones((9, 2))], [X])
    assert found.values[1, 0] == 0 and np.isfinite(found.without).all()


def test_blocks_by_hand():
    values = np.array([[1, 0.9, 0.2, 0.1], [0.9, 1, 0.4, 0.2], [0.2, 0.4, 1, 0.8], [0.1, 0.2, 0.8, 1]])
    assert blocks(values, 0.7) == [[0, 1], [2, 3]]
    assert blocks(values, 0.95) == [[0], [1], [2], [3]]
    assert blocks(values, 0.2) == [[0, 1, 2, 3]]  # the mean between the two blocks is (.2 + .1 + .4 + .2) / 4
