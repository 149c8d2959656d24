"""Which edit is strong enough: by hand."""

import numpy as np
import pytest

from cad_exp.evaluation.trade import chosen, rates, reached

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


def row(strength, rate, kept, left=0.5, moved=0.1):
    return {"strength": strength, "rate": rate, "kept": kept, "left": left, "moved": moved}


def test_the_weakest_that_fulfils_both_wishes():
    tried = [row(0.1, 0.5, 1), row(0.2, 0.02, 1), row(0.4, 0, 1)]
    assert [reached(each, 0.02) for each in tried] == [False, True, True]
    assert chosen(tried, 0.02, 0.99) == (1, "the weakest that leaves at most 0.02 and keeps at least 0.99")


def test_else_the_least_that_is_missed_of_both():
    """.48 too much is left; .08 and .10; .49 too little is kept."""
    tried = [row(0.1, 0.5, 1), row(0.2, 0.1, 0.89), row(0.4, 0, 0.5)]
    number, why = chosen(tried, 0.02, 0.99)
    assert number == 1 and why.endswith("this leaves 0.100, keeps 0.890")
    assert chosen(tried, 0.02, 0.0)[0] == 2 and chosen(tried, 1.0, 0.99)[0] == 0


def test_a_near_miss_is_told_from_a_hit():
    """Two of 96 are more than two in a hundred; rounded to two places they would read like the wish."""
    assert chosen([row(1, 2 / 96, 1)], 0.02, 0.99)[1].endswith("this leaves 0.021, keeps 1.000")


def test_without_a_judge_noisy_latents_decide():
    tried = [
        {"strength": s, "left": left, "moved": moved}
        for s, left, moved in ((1, 0.9, 0.0), (2, 0.3, 0.2), (3, 0.2, 0.9))
    ]
    number, why = chosen(tried, 0.02, 0.99)
    assert number == 1 and "no judge" in why
    assert not reached(tried[0], 1.0)
