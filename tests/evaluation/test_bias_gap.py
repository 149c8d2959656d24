"""The bias gap, by hand and on noise whose answer is known."""

import numpy as np
import pytest

from cad_exp.evaluation.bias_gap import bias_gap

AXES = np.eye(3)


def seeds(direction: np.ndarray, number: int = 40, noise: float = 0.0, seed: int = 0) -> np.ndarray:
    return direction + noise * np.random.default_rng(seed).normal(size=(number, len(direction)))


def test_by_hand():
    """(4, 3, 0) has cosine .8 with the first axis and .6 with the second, wherever all of it lies."""
    shift = np.array([5.0, -7.0, 2.0])
    found = bias_gap(*(seeds(each + shift, 4) for each in (np.array([4.0, 3.0, 0.0]), AXES[0], AXES[1], 0 * AXES[0])))
    assert (found.first, found.second, found.value) == pytest.approx((0.8, 0.6, 0.2))
    assert found.interval() == pytest.approx((0.2, 0.2))
    assert found.words == "95 % paired bootstrap over seeds, 2000 resamples, centred"


def test_a_prompt_between_two_attributes_has_no_gap_and_a_leaning_one_has():
    parts = [seeds(each, noise=0.5, seed=n) for n, each in enumerate((AXES[0] + AXES[1], *(3 * AXES[:2]), 0 * AXES[0]))]
    low, high = bias_gap(*parts).interval()
    assert low < 0 < high
    leaning = bias_gap(seeds(2 * AXES[0] + AXES[1], noise=0.5, seed=7), *parts[1:])
    assert leaning.interval()[0] > 0
    assert leaning.change(bias_gap(*parts))[1] > 0
    turned = bias_gap(parts[0], parts[2], parts[1], parts[3])
    assert turned.value == pytest.approx(-bias_gap(*parts).value)


def test_intervals_hold_the_truth_as_often_as_they_say():
    """Of 100 draws of the seeds around a known gap of .2, about 95 intervals hold it."""
    truth = np.array([4.0, 3.0, 0.0])
    held = 0
    for draw in range(100):
        rng = np.random.default_rng(draw)
        parts = [each + rng.normal(size=(60, 3)) for each in (truth, 5 * AXES[0], 5 * AXES[1], 0 * AXES[0])]
        low, high = bias_gap(*parts, resamples=200).interval()
        held += low <= 0.2 <= high
    assert held >= 86


def test_shared_noise_is_resampled_in_pairs():
    """Where all prompts share the noise of a seed, it cancels in every direction, and the interval is narrow."""
    noise = np.random.default_rng(3).normal(size=(30, 3))
    parts = [each + noise for each in (np.array([4.0, 3.0, 0.0]), AXES[0], AXES[1], 0 * AXES[0])]
    low, high = bias_gap(*parts).interval()
    assert high - low < 1e-9


def test_one_seed_is_refused():
    with pytest.raises(ValueError, match="at least two"):
        bias_gap(*(seeds(each, 1) for each in (AXES[0], AXES[1], AXES[2], AXES[0])))
