"""Which edit is strong enough: by hand."""

import numpy as np
import pytest
from scipy.stats import binom

from cad_exp.evaluation.trade import chosen, excess, rates, reached

NAN = float("nan")


def test_rates_by_hand():
    """Of three images of the concept one still shows it; of three others one never did, and one is lost."""
    concept = np.array([True, True, True, False, False, False])
    before = np.array([1.0, 1, 1, 1, 1, 0])
    after = np.array([1.0, 0, 0, 1, 0, 1])
    assert rates(concept, before, after) == {"rate": pytest.approx(1 / 3), "images": 3, "kept": 0.5}


def test_images_that_nobody_can_judge_do_not_count():
    concept = np.array([True, True, False])
    assert rates(concept, np.ones(3), np.array([NAN, 1, NAN])) == {"rate": 1.0, "images": 1, "kept": 1.0}
    assert rates(concept, np.ones(3), np.array([NAN, NAN, 1])) == {}


def row(strength, rate, kept, left=0.5, moved=0.1, images=100):
    return {"strength": strength, "rate": rate, "images": images, "kept": kept, "left": left, "moved": moved}


def test_the_weakest_that_fulfils_both_wishes():
    tried = [row(0.1, 0.5, 1), row(0.2, 0.02, 1, images=1000), row(0.4, 0, 1)]
    assert [reached(each, 0.03) for each in tried] == [False, True, True]
    assert chosen(tried, 0.03, 0.99) == (1, "the weakest that leaves at most 0.03 and keeps at least 0.99")


def test_else_the_least_that_is_missed_of_both():
    """.48 too much is left; .08 and .10; .49 too little is kept."""
    tried = [row(0.1, 0.5, 1, images=10**6), row(0.2, 0.1, 0.89, images=10**6), row(0.4, 0, 0.5)]
    number, why = chosen(tried, 0.02, 0.99)
    assert number == 1 and why.endswith("this leaves 0.100 of 1000000 images, keeps 0.890")
    assert chosen(tried, 0.02, 0.0)[0] == 2 and chosen(tried, 1.0, 0.99)[0] == 0


@pytest.mark.parametrize(
    ("shown", "images", "fulfilled"), [(0, 96, True), (1, 96, False), (1, 160, True), (0, 4, True)]
)
def test_a_wish_is_fulfilled_when_that_is_four_times_as_likely_as_not(shown, images, fulfilled):
    """The chance of more than the wish is that of at most `shown` of one image more, at the wish: a uniform prior."""
    assert reached(row(1, shown / images, 1, images=images), 0.02) == fulfilled
    if shown:
        assert (binom.cdf(shown, images + 1, 0.02) <= 0.2) == fulfilled


def test_one_of_few_images_is_told_from_a_fulfilled_wish():
    why = chosen([row(1, 1 / 96, 1, images=96)], 0.02, 0.99)[1]
    assert why.startswith("none surely leaves at most 0.02") and why.endswith("leaves 0.010 of 96 images, keeps 1.000")
    assert excess(row(1, 1 / 96, 1, images=96), 0.02) == pytest.approx(0.0106, abs=1e-4)


def test_without_a_judge_noisy_latents_decide():
    tried = [
        {"strength": s, "left": left, "moved": moved}
        for s, left, moved in ((1, 0.9, 0.0), (2, 0.3, 0.2), (3, 0.2, 0.9))
    ]
    number, why = chosen(tried, 0.02, 0.99)
    assert number == 1 and "no judge" in why
    assert not reached(tried[0], 1.0)
