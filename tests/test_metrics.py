import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st

from cad_exp.metrics import frechet_distance, frechet_interval, grouped_interval, mean_interval


def independent_frechet(real: np.ndarray, fake: np.ndarray) -> float:
    a, b = np.cov(real, rowvar=False), np.cov(fake, rowvar=False)
    root = scipy.linalg.sqrtm(a @ b)
    return float(((real.mean(0) - fake.mean(0)) ** 2).sum() + np.trace(a + b - 2 * np.real(root)))


def test_frechet_distance_equals_scipy():
    rng = np.random.default_rng(0)
    real, fake = rng.normal(size=(200, 8)), rng.normal(0.4, 1.3, size=(150, 8))
    assert frechet_distance(real, fake) == pytest.approx(independent_frechet(real, fake), rel=1e-6)


def test_frechet_interval_holds_the_value_and_the_sampling_spread():
    rng = np.random.default_rng(1)
    real, fake = rng.normal(size=(300, 4)), rng.normal(0.5, 1.0, size=(200, 4))
    value, low, high = frechet_interval(real, fake, resamples=40)
    assert low < value < high


@settings(max_examples=25, deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=60), st.integers(0, 5))
def test_mean_interval_brackets_the_mean_and_stays_in_range(values, seed):
    value, low, high = mean_interval(values, 200, seed)
    assert value == pytest.approx(np.mean(values))
    assert 0 <= low <= high <= 1
    assert mean_interval(values, 200, seed) == (value, low, high)


def test_mean_interval_of_a_fair_coin_has_the_textbook_width():
    _, low, high = mean_interval([0, 1] * 200, 4000)
    assert high - low == pytest.approx(2 * 1.96 * 0.5 / np.sqrt(400), rel=0.1)


def test_grouped_interval_weighs_groups_alike_and_finds_the_worst():
    groups = [[1] * 30, [1, 0], [0, 0, 0, 1]]
    assert grouped_interval(groups, np.mean)[0] == pytest.approx((1 + 0.5 + 0.25) / 3)
    assert grouped_interval(groups, np.min)[0] == pytest.approx(0.25)
