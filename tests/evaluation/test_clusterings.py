"""NMI, ARI and purity: by hand, beside scikit-learn, and what they are by chance."""

import numpy as np
import pytest
from sklearn import metrics

from cad_exp.evaluation.clusterings import agreement, ari, contingency, majority, nmi, permuted

RNG = np.random.default_rng(0)


def test_a_table_by_hand():
    table = contingency(np.array([0, 0, 1, 1]), np.array([0, 0, 0, 1]), (2, 2))
    assert table.tolist() == [[2, 0], [1, 1]]
    # of 6 pairs one is together in both; by chance 2 * 3 / 6 = 1: nothing is left
    assert ari(table) == pytest.approx(0.0)
    mutual = np.log(2) + (-0.75 * np.log(0.75) - 0.25 * np.log(0.25)) - (1.5 * np.log(2))
    assert nmi(table) == pytest.approx(mutual / ((np.log(2) - 0.75 * np.log(0.75) - 0.25 * np.log(0.25)) / 2))


@pytest.mark.parametrize("seed", range(5))
def test_nmi_and_ari_are_those_of_scikit_learn(seed: int):
    rng = np.random.default_rng(seed)
    groups, classes = rng.integers(0, 5, 80), rng.integers(0, 7, 80)
    classes[:40] = groups[:40]
    assert agreement(groups, classes, nmi).value == pytest.approx(metrics.normalized_mutual_info_score(classes, groups))
    assert agreement(groups, classes, ari).value == pytest.approx(metrics.adjusted_rand_score(classes, groups))


def test_each_left_out_value_is_that_of_the_other_images():
    groups, classes = RNG.integers(0, 3, 12), RNG.integers(0, 4, 12)
    found = agreement(groups, classes, nmi)
    for number, value in enumerate(found.without):
        rest = np.arange(12) != number
        assert value == pytest.approx(metrics.normalized_mutual_info_score(classes[rest], groups[rest]))


def test_equal_partitions_are_one_and_permuted_ones_are_near_chance():
    groups = np.repeat(np.arange(4), 25)
    assert agreement(groups, 3 - groups, nmi).value == pytest.approx(1.0) == agreement(groups, 3 - groups, ari).value
    by_chance = permuted(groups, groups, ari, seed=0)
    low, high = by_chance.interval()
    assert abs(by_chance.value) < 0.01 and low < 0 < high < 0.1
    assert permuted(groups, groups, nmi, seed=0).value > 0.01  # NMI is not 0 by chance: this is why it is shown


def test_the_majority_names_a_group():
    names = majority(np.array([0, 0, 0, 2]), np.array([1, 1, 0, 0]), 3)
    assert names.tolist() == [1, 0, 0]  # the second has no images: the most frequent class of all, of equals the first
