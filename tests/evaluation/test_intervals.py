"""Intervals against scipy, hand-computed and published numbers, and simulated coverage."""

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from cad_exp.evaluation.intervals.estimate import estimated
from cad_exp.evaluation.intervals.formulas import Fourfold, garwood, student, wilson
from cad_exp.evaluation.intervals.images import Mean, Share, Total
from cad_exp.evaluation.intervals.labels import Means, Shares
from cad_exp.evaluation.intervals.resampled import Bootstrapped, Jackknifed


def bits(ones: int, n: int) -> np.ndarray:
    return np.arange(n) < ones


def fourfold(both: int, only_before: int, only_after: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    before = [1] * both + [1] * only_before + [0] * only_after + [0] * neither
    after = [1] * both + [0] * only_before + [1] * only_after + [0] * neither
    return np.array(before), np.array(after)


@pytest.mark.parametrize("hits, n, low, high", [(0, 64, 0, 0.0566), (4, 4, 0.5101, 1), (81, 263, 0.2553, 0.3662)])
def test_wilson_by_hand(hits: int, n: int, low: float, high: float):
    """Of 0 of n the upper limit is z^2 / (n + z^2); 81 of 263 is Newcombe's own example (1998)."""
    assert Share(bits(hits, n)).interval() == wilson(hits / n, n) == pytest.approx((low, high), abs=5e-5)
    known = scipy.stats.binomtest(hits, n).proportion_ci(method="wilson")
    assert wilson(hits / n, n) == pytest.approx((known.low, known.high), abs=1e-12)
    assert wilson(0, 64)[1] == pytest.approx(1.959964**2 / (64 + 1.959964**2))


# Newcombe (Statistics in Medicine 17, 1998, 2635-2650): cells e, f, g, h and the limits of method 10. The last by hand:
# nothing differs, and both ways it is Wilson's z^2 / (n + z^2).
@pytest.mark.parametrize(
    "cells, low, high",
    [((36, 12, 2, 0), 0.0569, 0.3404), ((20, 12, 2, 16), 0.0562, 0.3290), ((50, 0, 0, 0), -0.0713, 0.0713)],
)
def test_paired_shares_are_newcombes_method_10(cells, low: float, high: float):
    before, after = fourfold(*cells)
    value, *found = Fourfold.of(after, before).change()  # he takes the first less the second
    assert value == pytest.approx((cells[1] - cells[2]) / 50)
    assert found == pytest.approx([low, high], abs=2e-3)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40))
def test_no_share_or_change_collapses_or_leaves_its_interval(pairs):
    before, after = (np.array(column) for column in zip(*pairs, strict=True))
    for value, low, high in (estimated(Share(after)), Share(after).change(Share(before))):
        assert low - 1e-12 <= value <= high + 1e-12 and high - low > 0.01 and -1 <= low <= high <= 1
    turned = Share(before).change(Share(after))
    assert Share(after).change(Share(before)) == pytest.approx((-turned[0], -turned[2], -turned[1]), abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.booleans(), min_size=1, max_size=8), min_size=1, max_size=8), st.booleans())
def test_shares_over_labels_hold_their_value_and_never_collapse(groups, worst: bool):
    shares = Shares([np.array(group) for group in groups], worst)
    value, low, high = estimated(shares)
    assert 0 <= low <= value <= high <= 1 and high - low > 0.01
    assert value == pytest.approx((min if worst else np.mean)([np.mean(group) for group in groups]))
    change, low, high = shares.change(shares)
    assert change == 0 and low < 0 < high


def test_the_mean_over_labels_is_one_share_of_as_many_images():
    groups = [bits(12, 12), bits(9, 12), bits(3, 12)]
    assert Shares(groups).interval() == pytest.approx(wilson(24 / 36, 36))
    unequal = Shares([bits(1, 1), bits(1, 3)])  # 1 + 1/3 images' worth of variance for each of two labels
    assert unequal.interval() == pytest.approx(wilson(2 / 3, 4 / (1 + 1 / 3)))
    after = [bits(12, 12), bits(8, 12), bits(0, 12)]
    pooled = Fourfold.of(np.concatenate(groups), np.concatenate(after)).change()
    assert Shares(after).change(Shares(groups)) == pytest.approx(pooled)


def test_the_worst_share_is_bounded_by_simultaneous_wilson_intervals():
    groups = [bits(12, 12), bits(9, 12), bits(3, 12)]
    assert Shares(groups, worst=True).interval() == wilson(3 / 12, 12, 0.95 ** (1 / 3))


def test_means_are_students_and_equal_values_have_no_interval():
    x = np.array([0.2, 0.5, 0.9, 0.4])
    known = scipy.stats.t.interval(0.95, 3, x.mean(), scipy.stats.sem(x))
    assert Mean(x).interval() == pytest.approx(known)
    y = x + np.array([0.1, 0.3, 0.2, 0.4])
    paired = scipy.stats.ttest_rel(y, x).confidence_interval()
    assert Mean(y).change(Mean(x)) == pytest.approx((0.25, paired.low, paired.high))
    assert estimated(Mean(np.array([3.0]))) == (3.0, None, None) and student(np.zeros(5)) is None


def test_means_over_labels_pool_the_variance_within_labels():
    groups = [np.array([1.0, 3.0]), np.array([10.0, 14.0])]  # variance (2 + 8) / 2 = 5, 2 degrees of freedom
    value, low, high = estimated(Means(groups))
    reach = scipy.stats.t.ppf(0.975, 2) * math.sqrt(5 * (1 / 2 + 1 / 2)) / 2
    assert (value, low, high) == pytest.approx((7, 7 - reach, 7 + reach))
    single = [np.array([1.0]), np.array([2.0]), np.array([4.0])]
    assert Means(single).interval() == student(np.array([1.0, 2.0, 4.0]))
    assert estimated(Means(groups, worst=True))[0] == 12 and Means(single, worst=True).interval() is None
    value, low, high = Means(groups, worst=True).change(Means([g * 0 for g in groups], worst=True))
    assert low < value == 12 < high


def test_totals_are_at_least_as_wide_as_poissons():
    assert garwood(0) == pytest.approx((0, 3.6889), abs=1e-4) and garwood(3) == pytest.approx(
        (0.6187, 8.7673), abs=1e-4
    )
    assert estimated(Total(np.zeros(20))) == pytest.approx((0, 0, 3.6889), abs=1e-4)
    value, low, high = estimated(Total(np.array([9, 0, 0, 0, 0, 0])))  # one image with many: t is the wider
    assert value == 9 and low == 0 and high > garwood(9)[1]
    same = Total(np.array([2, 0, 1]))
    assert same.change(same) == pytest.approx((0, -3.6889, 3.6889), abs=1e-4)
    value, low, high = Total(np.zeros(30)).change(Total(np.ones(30)))
    assert value == -30 and low < -30 < high < 0


def test_bootstrapped_and_jackknifed_values_lie_in_their_intervals():
    drawn = Bootstrapped(0.2, np.linspace(3, 9, 41))
    value, low, high = estimated(drawn)
    assert low == 0 and high > value and drawn.words.startswith("95 %")
    assert drawn.change(Bootstrapped(1.0, drawn.drawn + 2)) == pytest.approx((-0.8, -0.8, -0.8))  # as one: no spread
    few = Jackknifed(-0.121, np.array([-0.12, -0.122, -0.121, -0.1215]), np.full(9, -0.121))
    value, low, high = estimated(few)
    assert low == value and high == 0
    assert estimated(Jackknifed(0.3, np.zeros(2), np.zeros(9))) == (0.3, None, None)
    assert few.change(Jackknifed(0.1, few.without + 0.2, few.without_reference)) == pytest.approx((-0.221,) * 3)


def test_the_jackknife_of_a_difference_of_means_is_welchs_error():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=12), rng.normal(size=30)

    def without(z: np.ndarray) -> np.ndarray:
        return (z.sum() - z) / (len(z) - 1)

    value = x.mean() - y.mean() + 5
    _, low, high = estimated(Jackknifed(value, without(x) - y.mean(), x.mean() - without(y)))
    error = math.sqrt(x.var(ddof=1) / 12 + y.var(ddof=1) / 30)
    assert high - low == pytest.approx(2 * scipy.stats.t.ppf(0.975, 11) * error)


@pytest.mark.parametrize("rate", [0.02, 0.5, 0.97])
def test_mean_and_worst_of_labels_cover_what_they_estimate(rate: float):
    true, hits, lowest = np.clip(rate + np.linspace(-0.02, 0.02, 8), 0, 1), 0, 0
    for ones in np.random.default_rng(5).binomial(12, np.tile(true, (400, 1))):
        groups = [bits(k, 12) for k in ones]
        low, high = Shares(groups).interval()
        hits += low <= true.mean() <= high
        low, high = Shares(groups, worst=True).interval()
        lowest += low <= true.min() <= high
    assert hits >= 372 and lowest >= 372  # 93 %


def test_paired_changes_cover_the_true_change_and_are_narrower_than_unpaired_ones():
    rng, hits, mean_hits, narrower = np.random.default_rng(4), 0, 0, 0
    for _ in range(250):
        before = rng.random((6, 16)) < 0.9
        lost = rng.random((6, 16)) < 0.1
        after = before & ~lost
        value, low, high = Share(after[0]).change(Share(before[0]))
        hits += low <= -0.09 <= high
        _, low, high = Shares(list(after)).change(Shares(list(before)))
        mean_hits += low <= -0.09 <= high
        wide = [s.interval()[1] - s.interval()[0] for s in (Shares(list(after)), Shares(list(before)))]
        narrower += high - low < math.hypot(*wide)
    assert hits >= 230 and mean_hits >= 230 and narrower > 200
