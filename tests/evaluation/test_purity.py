"""Purity, label entropy and sigma_label: by hand, against scipy and scikit-learn, and beside their nulls."""

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn.metrics import mutual_info_score
from sklearn.metrics.cluster import contingency_matrix

from cad_exp.evaluation.monosemanticity.codes import activity, columns, top_images
from cad_exp.evaluation.monosemanticity.over_latents import OverLatents
from cad_exp.evaluation.monosemanticity.purity import purity
from cad_exp.evaluation.monosemanticity.sigma import sigma_label
from tests.evaluation.dictionaries import balanced, perfect, random

# Latent 0: 6 images of class 0 and 2 of class 1; a ninth image is weaker, the strongest of all has no class.
# Latent 1 acts in seven images only. Latent 2 is dead. Latent 3 acts in the image without a class alone.
CLASSES = np.array([0, 0, 0, 0, 0, 0, 1, 1, 1, -1])
CODES = np.zeros((10, 4))
CODES[:, 0] = [9, 8, 7, 6, 5, 4, 3, 2, 1, 99]
CODES[:7, 1] = 1
CODES[9, 3] = 5


def test_purity_by_hand():
    found = purity(sparse.csr_matrix(CODES), CLASSES)
    assert (found.latents.tolist(), found.alive, found.dead, found.classes) == ([0], 3, 1, 2)
    assert found.images.tolist() == [[0, 1, 2, 3, 4, 5, 6, 7]] and found.purity.tolist() == [0.75]
    assert found.entropy[0] == pytest.approx(0.75 * math.log2(4 / 3) + 0.25 * 2) == found.normalised[0]
    assert found.mean().value == 0.75 and found.mean().interval() is None
    wide = purity(sparse.csr_matrix(CODES), CLASSES, top=7)
    assert wide.latents.tolist() == [0, 1] and wide.purity == pytest.approx([6 / 7, 6 / 7])


def test_entropy_is_normalised_by_what_the_images_can_have():
    """Four images of four classes, out of ten: as mixed as four images can be."""
    found = purity(sparse.csr_matrix(np.ones((10, 1)) * [[4 - i * 0.1] for i in range(10)]), np.arange(10), top=4)
    assert found.entropy.tolist() == [2.0] and found.normalised.tolist() == [1.0] and found.purity.tolist() == [0.25]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 6), st.integers(2, 9))
def test_purity_is_what_a_plain_loop_and_scikit_learn_say(seed: int, number: int, top: int):
    rng = np.random.default_rng(seed)
    codes, classes = random(40, 12, 0.4, seed), rng.integers(-1, number, 40)
    classes[:2] = 0, 1
    found = purity(codes, classes, top, permutations=2)
    dense, expected = codes.toarray() * (classes >= 0)[:, None], []
    for latent in range(12):
        if (dense[:, latent] > 0).sum() >= top:
            shown = classes[np.argsort(-dense[:, latent])[:top]]
            counts = np.bincount(shown)
            expected.append((latent, counts.max() / top, scipy.stats.entropy(counts, base=2)))
    assert found.latents.tolist() == [each[0] for each in expected]
    if expected:
        assert found.purity == pytest.approx([each[1] for each in expected])
        assert found.entropy == pytest.approx([each[2] for each in expected])
        latents, shown = np.repeat(found.latents, top), classes[found.images].ravel()
        table = contingency_matrix(latents, shown)
        assert found.mean().value == pytest.approx(table.max(1).sum() / table.sum())
        told = mutual_info_score(latents, shown) / math.log(2)  # H(class) less what is left given the latent
        assert found.mean_entropy().value == pytest.approx(scipy.stats.entropy(table.sum(0), base=2) - told)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_the_order_of_latents_and_the_names_of_classes_change_nothing(seed: int):
    rng = np.random.default_rng(seed)
    codes, classes = random(60, 10, 0.4, seed), rng.integers(-1, 4, 60)
    codes.data = np.ceil(codes.data * 3)  # many equal codes
    order, names = rng.permutation(10), np.append(rng.permutation(4) * 7, -1)
    one, other = purity(codes, classes, 4, 20), purity(codes[:, order], names[classes], 4, 20)
    for each in ("purity", "entropy"):
        assert np.sort(getattr(one, each)) == pytest.approx(np.sort(getattr(other, each)))
        assert getattr(one.null, each) == pytest.approx(getattr(other.null, each))
    first, second = (sigma_label(each, classes, top=4, permutations=20) for each in (codes, codes[:, order]))
    assert np.sort(first.values) == pytest.approx(np.sort(second.values))
    assert (first.chance, *first.renumbered) == pytest.approx((second.chance, *second.renumbered))


def test_a_latent_for_each_class_is_pure_beyond_chance():
    classes = balanced(120, 4)
    found = purity(perfect(classes), classes)
    assert found.mean().value == 1 and found.mean_entropy().value == 0 and found.above().value == 1
    assert found.null.quantile < 1 and found.p_value() == pytest.approx(1 / 201)


def test_random_codes_lie_within_the_null():
    classes = balanced(400, 8)
    found = purity(random(400, 300), classes)
    low, high = np.percentile(found.null.means, [0.5, 99.5])
    assert low <= found.mean().value <= high and 0.01 < found.p_value() < 0.99
    assert found.above().value < 0.03 and found.null.above <= 0.01
    bits = [scipy.stats.entropy(np.bincount(classes[row]), base=2) for row in found.images]
    assert found.null.entropy == pytest.approx(np.mean(bits), abs=0.05)


def test_the_null_is_hypergeometric():
    """Of 5 and 5 images four are drawn: the larger share is 1 in 10 of 210 draws, .75 in 100 and .5 in 100."""
    classes = balanced(10, 2)
    found = purity(sparse.csr_matrix(np.random.default_rng(0).random((10, 200))), classes, top=4, permutations=400)
    assert found.null.purity == pytest.approx((10 + 75 + 50) / 210, abs=0.005)
    assert found.null.quantile == 1 and found.null.above == 0
    rare = purity(sparse.csr_matrix(np.random.default_rng(0).random((40, 200))), balanced(40, 2), top=8)
    tail = 2 * scipy.stats.hypergeom.sf(6, 40, 20, 8)  # 7 or 8 of one class
    assert rare.null.quantile == 0.875 and rare.null.above == pytest.approx(
        tail - 2 * scipy.stats.hypergeom.pmf(7, 40, 20, 8), abs=2e-3
    )


def test_latents_that_share_images_are_no_independent_evidence():
    """A hundred copies of one latent: the mean over them spreads under the null as one latent does."""
    classes, one = balanced(80, 4), random(80, 1, 0.5)
    copies = purity(sparse.hstack([one] * 100).tocsr(), classes)
    apart = purity(random(80, 100, 0.5), classes)
    assert copies.null.means.std() > 3 * apart.null.means.std()


def test_ties_are_broken_by_chance_and_not_by_the_order_of_images():
    """A latent that acts alike in every image of a sorted data set knows no class."""
    classes = np.repeat(np.arange(4), 50)
    found = purity(sparse.csr_matrix(np.ones((200, 1))), classes)
    assert found.purity[0] < 1
    assert top_images(sparse.csr_matrix(np.ones((200, 1))), 8, seed=1)[1].tolist() != found.images.tolist()


def test_no_latent_acts_often_enough():
    found = purity(sparse.csr_matrix((20, 3)), balanced(20, 2))
    assert found.null is None and found.dead == 3 and not len(found.latents)
    assert sigma_label(sparse.csr_matrix((20, 3)), balanced(20, 2)).chance is None


def test_codes_are_checked():
    stored = sparse.csr_matrix((np.array([0.0, 2.0]), np.array([0, 1]), np.array([0, 2])), shape=(1, 2))
    assert columns(stored).nnz == 1 and activity(stored).tolist() == [0, 1]
    for wrong in (-1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match="finite and not negative"):
            columns(sparse.csr_matrix([[wrong, 1.0]]))


def test_the_mean_over_latents_has_the_spread_of_a_mean():
    rng = np.random.default_rng(3)
    a, b = rng.random(400), rng.random(100) + 0.1
    value, first, second = OverLatents.of(a), OverLatents.of(a), OverLatents.of(b)
    low, high = first.interval()
    assert high - low == pytest.approx(2 * 1.96 * a.std() / 20, rel=0.08) and low < a.mean() < high
    change, low, high = second.change(first)
    assert change == pytest.approx(b.mean() - a.mean())
    assert high - low == pytest.approx(2 * 1.96 * math.hypot(a.std() / 20, b.std() / 10), rel=0.08)
    _, low, high = value.change(first)  # the same random numbers, and yet nothing is paired
    assert high - low == pytest.approx(2 * 1.96 * math.sqrt(2) * a.std() / 20, rel=0.08)
    assert OverLatents.of(np.ones(5)).change(OverLatents.of(np.zeros(7))) == (1.0, None, None)


def test_sigma_by_hand():
    """Latent 0 acts in 12 images, the ten strongest of class 3 and 5; latent 1 more strongly; latent 2 in ten only."""
    classes = np.array([3, 5] * 5 + [90, 90])
    codes = np.zeros((12, 3))
    codes[:, 0] = np.arange(12, 0, -1)
    codes[:, 1] = np.arange(101, 113)
    codes[:10, 2] = 1000
    found = sigma_label(sparse.csr_matrix(codes), classes)
    own = [classes[:10].std(ddof=1), classes[2:].std(ddof=1)]
    assert found.latents.tolist() == [1, 0] and found.values == pytest.approx(own[::-1])
    assert found.mean().value == pytest.approx(np.mean(own)) and found.classes == 3
    assert sigma_label(sparse.csr_matrix(codes), classes, latents=1).values == pytest.approx(own[1:])


def test_the_most_active_latents_are_those_with_the_largest_mean_where_they_act():
    codes = np.zeros((40, 2))
    codes[:, 0], codes[:12, 1] = 1.0, 2.0  # the second acts more seldom: 40 in all against 24
    codes += codes * np.random.default_rng(0).random((40, 2)) * 0.1
    assert sigma_label(sparse.csr_matrix(codes), balanced(40, 4), latents=1).latents.tolist() == [1]


@pytest.mark.parametrize("number, level", [(37, 10.53), (102, 29.0)])
def test_the_chance_level_of_sigma_grows_with_the_classes(number: int, level: float):
    found = sigma_label(random(number * 20, 100), balanced(number * 20, number), permutations=50)
    assert found.chance == pytest.approx(level, rel=0.015)
    assert found.chance_low < found.mean().value < found.chance_high


def test_sigma_depends_on_how_classes_are_numbered_and_purity_does_not():
    """Every latent mixes two classes: neighbours in one numbering, far apart in another."""
    pairs = np.repeat(np.arange(10), 40)
    codes, near = perfect(pairs), pairs * 2 + balanced(400, 2)
    far = pairs + 10 * balanced(400, 2)
    one, other = sigma_label(codes, near), sigma_label(codes, far)
    assert one.mean().value < 0.6 and other.mean().value > 4.5
    assert purity(codes, near).purity == pytest.approx(purity(codes, far).purity)
    low, high = one.renumbered
    assert one.mean().value < low < high and one.renumbered == pytest.approx(other.renumbered, rel=0.25)
    assert sigma_label(perfect(far), far).mean().value == 0
