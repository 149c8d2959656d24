import numpy as np
import pytest
import scipy.linalg

from cad_exp.evaluation.distances import (
    Statistics,
    frechet_distance,
    frechet_estimate,
    kernel_distance,
    kernel_estimate,
)
from cad_exp.evaluation.intervals.estimate import estimated


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
    value, low, high = estimated(frechet_estimate(real, fake, resamples=40))
    assert low < value < high


def test_the_change_of_fid_pairs_the_images():
    """Two variants whose images differ by a small shift: the change is known far better than either distance."""
    rng = np.random.default_rng(2)
    real, fake = rng.normal(size=(300, 4)), rng.normal(0.5, 1.0, size=(80, 4))
    before, after = (frechet_estimate(real, x, 60) for x in (fake, fake + 0.1))
    value, low, high = after.change(before)
    assert low < value < high and value == pytest.approx(after.value - before.value)
    assert high - low < 0.5 * np.diff(after.interval())[0]
    assert frechet_estimate(Statistics.of(real), fake, 60).drawn == pytest.approx(before.drawn)


def independent_kernel(x: np.ndarray, y: np.ndarray) -> float:
    """The unbiased squared MMD, term by term."""
    kernel = lambda a, b: (a @ b / len(a) + 1) ** 3  # noqa: E731
    within = [np.mean([kernel(a, b) for i, a in enumerate(z) for j, b in enumerate(z) if i != j]) for z in (x, y)]
    return sum(within) - 2 * np.mean([kernel(a, b) for a in x for b in y])


def test_the_delete_one_values_of_kid_are_what_is_left():
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(6, 3)), rng.normal(0.3, 1, size=(5, 3))
    found = kernel_estimate(x, y)
    assert found.without == pytest.approx([independent_kernel(x, np.delete(y, i, 0)) for i in range(5)])
    assert found.without_reference == pytest.approx([independent_kernel(np.delete(x, i, 0), y) for i in range(6)])


def test_kid_of_one_image_per_label_is_negative_and_its_interval_reaches_zero():
    """Ten labels, one image of each, drawn as the reference is: the truth is 0, and the estimate below it by design."""
    rng, centres = np.random.default_rng(4), np.random.default_rng(0).normal(0, 2, size=(10, 8))
    real, fake = (np.repeat(centres, k, 0) + rng.normal(0, 0.2, (10 * k, 8)) for k in (12, 1))
    assert kernel_distance(real, fake) < 0
    value, low, high = estimated(kernel_estimate(real, fake))
    assert low <= value <= 0 <= high
    assert kernel_estimate(real, fake[:2]).interval() is None
