"""k-sparse probes and best latents: by hand, against scikit-learn, and beside chance."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn.feature_selection import f_classif
from sklearn.linear_model import Ridge
from sklearn.metrics import balanced_accuracy_score, f1_score, precision_recall_fscore_support
from sklearn.preprocessing import StandardScaler

from cad_exp.evaluation.intervals.formulas import wilson
from cad_exp.evaluation.monosemanticity.best_latent import best_latents
from cad_exp.evaluation.monosemanticity.codes import Task
from cad_exp.evaluation.monosemanticity.f1 import F1s, best_cut
from cad_exp.evaluation.monosemanticity.sparse_probe import association, ranking, sparse_probe
from cad_exp.representations.probes.base import Split
from cad_exp.representations.probes.linear import STRENGTHS
from tests.evaluation.dictionaries import balanced, perfect, random, task


def informed(seed: int, images: int = 240, latents: int = 20, number: int = 4) -> tuple[sparse.csr_matrix, np.ndarray]:
    """Codes of which some know a little of the classes, which are unequally frequent."""
    rng = np.random.default_rng(seed)
    classes = rng.choice(number, images, p=np.arange(1, number + 1) / sum(range(1, number + 1)))
    means = rng.random((number, latents)) * (rng.random(latents) < 0.5)
    return sparse.csr_matrix(np.maximum(means[classes] * 1.5 + rng.normal(size=(images, latents)) * 0.5, 0)), classes


def test_a_task_leaves_out_classes_that_a_part_of_the_split_lacks():
    classes = np.array([4, 7, 9, -1, 4, 7, 4, 7, 9])
    found = Task.of(classes, Split(np.arange(4), np.arange(4, 6), np.arange(6, 9)))
    assert found.classes.tolist() == [0, 1, -1, -1, 0, 1, 0, 1, -1] and found.ids.tolist() == [4, 7]
    assert found.split.test.tolist() == [6, 7] and found.number == 2
    assert Task.of(np.zeros(9, int), found.split) is None
    drawn = list(found.permuted(20))
    assert all((each[[0, 1]].tolist() in ([0, 1], [1, 0])) and (each[[2, 3, 8]] == -1).all() for each in drawn)
    assert any(each[0] == 1 for each in drawn)


def test_latents_are_ranked_as_the_f_statistic_ranks_them():
    codes, classes = informed(0)
    codes = sparse.hstack([codes, sparse.csr_matrix((240, 1))]).tocsr()  # a dead latent
    own = task(classes)
    dense, known = codes.toarray()[own.split.train], own.classes[own.split.train]
    for number in range(4):
        member = known == number
        correlated = [np.corrcoef(dense[:, latent], member)[0, 1] for latent in range(20)]
        assert association(codes, own)[number] == pytest.approx([*correlated, 0.0])
        order = np.argsort(-f_classif(dense[:, :20], member)[0])
        assert ranking(codes, own, 99)[number].tolist() == order.tolist()
        speaking = [latent for latent in order if correlated[latent] > 0]
        assert ranking(codes, own, 3, speaking=True)[number].tolist() == speaking[:3]


@pytest.mark.parametrize("k", [1, 3])
def test_a_sparse_probe_reads_as_scikit_learns_ridge_does(k: int):
    codes, classes = informed(1)
    own = task(classes)
    found, train = sparse_probe(codes, own, k), own.split.train
    says = []
    for number, latents in enumerate(found.latents):
        x, member = codes.toarray()[:, latents], own.classes == number
        weights = np.where(member, 0.5 / member[train].mean(), 0.5 / (1 - member[train].mean()))
        scaler = StandardScaler().fit(x[train])
        ridge = Ridge(found.strength).fit(scaler.transform(x[train]), member[train], sample_weight=weights[train])
        says.append(ridge.predict(scaler.transform(x)))
    read, test = np.argmax(says, 0), own.split.test
    assert (found.right == (read[test] == own.classes[test])).all() and 0.3 < found.right.mean() < 1
    assert found.accuracy().value == pytest.approx(balanced_accuracy_score(own.classes[test], read[test]))
    kept = own.split.validation
    assert found.validation == pytest.approx(balanced_accuracy_score(own.classes[kept], read[kept]))


def test_the_strength_is_the_best_on_validation_images_and_of_equals_the_largest(monkeypatch):
    codes, classes = informed(4)
    own, alone = task(classes), {}
    found = sparse_probe(codes, own, 8)
    for strength in STRENGTHS:
        monkeypatch.setattr("cad_exp.evaluation.monosemanticity.sparse_probe.STRENGTHS", (strength,))
        alone[strength] = sparse_probe(codes, own, 8).validation
    best = max(alone.values())
    assert found.strength == max(each for each in STRENGTHS if alone[each] == best) and len(set(alone.values())) > 1


def test_a_latent_for_each_class_is_enough():
    classes = balanced(300, 6)
    found = sparse_probe(perfect(classes), task(classes), 1)
    assert found.accuracy().value == 1 and [each.tolist() for each in found.latents] == [[c] for c in range(6)]
    split = perfect(classes, parts=2)
    assert sparse_probe(split, task(classes), 1).accuracy().value < 0.75
    assert sparse_probe(split, task(classes), 2).accuracy().value == 1


def test_a_latent_that_falls_silent_tells_as_much():
    classes = balanced(90, 3)
    codes = sparse.csr_matrix((classes[:, None] != np.arange(3)) * 1.0)
    assert sparse_probe(codes, task(classes), 1).accuracy().value == 1


def test_random_codes_read_no_more_than_chance():
    classes = balanced(600, 6)
    low, high = sparse_probe(random(600, 200), task(classes), 4).accuracy().interval()
    assert low < 1 / 6 < high and high < 0.3
    silent = sparse_probe(sparse.csr_matrix((600, 5)), task(classes), 4)
    assert silent.accuracy().value == pytest.approx(1 / 6) and not len(silent.latents[0])


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10**6))
def test_the_order_and_the_scales_of_latents_change_nothing(seed: int):
    rng = np.random.default_rng(seed)
    codes, classes = informed(seed)
    order, scales = rng.permutation(20), sparse.diags(10 ** rng.uniform(-2, 2, 20))
    other = (codes @ scales)[:, order].tocsr()
    own = task(classes)
    for k in (1, 4):
        one, two = sparse_probe(codes, own, k), sparse_probe(other, own, k)
        assert (one.right == two.right).all() and all(
            (a == order[b]).all() for a, b in zip(one.latents, two.latents, strict=True)
        )
    first, second = best_latents(codes, own, 2), best_latents(other, own, 2)
    assert first.test.each == pytest.approx(second.test.each) and first.chance == pytest.approx(second.chance)
    assert first.latents.tolist() == order[second.latents].tolist()


@pytest.mark.parametrize(
    "measure", [lambda codes, own: sparse_probe(codes, own, 2), lambda c, own: best_latents(c, own, 1)]
)
def test_nothing_is_chosen_by_test_images(measure):
    codes, classes = informed(2)
    own = task(classes)
    others = classes.copy()
    others[own.split.test] = np.random.default_rng(0).permutation(classes[own.split.test])
    one, two = measure(codes, own), measure(codes, task(others))
    assert np.array_equal(one.latents, two.latents)
    values = [each.accuracy().value if hasattr(each, "accuracy") else each.test.value for each in (one, two)]
    assert values[1] < values[0] - 0.1


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1, max_size=12), st.integers(0, 3))
def test_the_best_threshold_is_the_best_of_all(cases, missed: int):
    """missed: images of the class that do not act at all."""
    values, member = np.array([case[0] for case in cases], float) + 1, np.array([case[1] for case in cases])
    true = np.append(member, [True] * (missed + 1))
    threshold, best, gap = best_cut(values, member[:, None], np.array([true.sum()]), 0.0)
    scores = {}
    for cut in np.append(np.unique(values), 0.0):
        said = np.append(values > cut, [False] * (missed + 1))
        scores[cut] = f1_score(true, said, zero_division=0.0)
    assert best[0] == pytest.approx(max(scores.values()))
    said = np.append(values > threshold[0], [False] * (missed + 1))
    assert f1_score(true, said, zero_division=0.0) == pytest.approx(best[0])
    assert gap[0] == 2 * (threshold[0] - np.append(values, 0.0)[np.append(values, 0.0) < threshold[0]].max())


def test_the_best_latents_are_what_scikit_learn_finds():
    codes, classes = informed(3, 150, 3)
    own = task(classes)
    found, dense = best_latents(codes, own, 1), codes.toarray()
    train, test = own.split.train, own.split.test
    said = dense[:, found.latents] > found.thresholds
    for number in range(own.number):
        member = own.classes == number
        scores = [  # every latent, every threshold
            f1_score(member[train], dense[train, latent] > cut)
            for latent in range(3)
            for cut in (0.0, *np.unique(dense[train, latent])[:-1])
        ]
        assert found.training[number] == pytest.approx(max(scores))
        assert found.training[number] == pytest.approx(f1_score(member[train], said[train, number]))
        known = precision_recall_fscore_support(member[test], said[test, number], average="binary")
        own_values = (found.test.precision, found.test.recall, found.test.each)
        assert [each[number] for each in own_values] == pytest.approx(known[:3])
    assert found.test.value == pytest.approx(found.test.each.mean()) and found.test.value < found.training.mean()


def test_a_perfect_dictionary_has_f1_of_one_and_an_interval_that_does_not_collapse():
    classes = balanced(240, 4)
    found = best_latents(perfect(classes), task(classes))
    assert found.test.value == 1 and found.latents.tolist() == [0, 1, 2, 3] and found.training.mean() == 1
    low, high = found.test.interval()
    assert high == 1 and 0.9 < low < 1
    assert found.chance.mean() < 0.4 and len(found.chance) == 20  # silent in most images: worth a guess
    silent = best_latents(sparse.csr_matrix((240, 3)), task(classes), 1)
    assert silent.test.value == 0 and (silent.latents == -1).all() and silent.test.interval()[1] > 0


def test_of_equally_good_latents_the_one_with_the_widest_gap_is_taken():
    classes = balanced(80, 2)
    codes = np.stack([0.9 + 0.1 * (classes == 0), 100.0 * (classes == 0), 50.0 + 50 * (classes == 1)], 1)
    found = best_latents(sparse.csr_matrix(codes), task(classes), 1)
    assert found.latents.tolist() == [1, 2] and found.thresholds.tolist() == [50.0, 75.0]


def test_a_search_among_random_latents_finds_nothing_that_lasts():
    classes = balanced(400, 5)
    found = best_latents(random(400, 150, 0.3), task(classes), 20)
    low, high = found.chance.min(), found.chance.max()
    assert low <= found.test.value <= high < 0.36
    assert found.training_chance.min() > found.chance.mean() + 0.05  # it looks like something on training images


def test_f1_and_its_interval_by_hand():
    """One class: 3 found, 1 wrong, 2 missed: F1 = 6 / 9, J = 3 / 6; another: 1 of 1. Both as one of 2^2 / (1/6 + 1)."""
    one = F1s(np.array([3]), np.array([1]), np.array([2]))
    assert (one.value, one.precision[0], one.recall[0]) == pytest.approx((2 / 3, 3 / 4, 3 / 5))
    low, high = wilson(0.5, 6)
    assert one.interval() == pytest.approx((2 * low / (1 + low), 2 * high / (1 + high)))
    two = F1s(np.array([3, 1]), np.array([1, 0]), np.array([2, 0]))
    low, high = wilson((5 / 6) / (2 - 5 / 6), 4 / (1 / 6 + 1))
    assert two.value == pytest.approx(5 / 6) and two.interval() == pytest.approx(
        (2 * low / (1 + low), 2 * high / (1 + high))
    )
    value, low, high = two.change(one)
    assert value == pytest.approx(1 / 6) and low < 0 < value < high
    assert high - value == pytest.approx(np.hypot(two.interval()[1] - 5 / 6, 2 / 3 - one.interval()[0]))
    said, true = np.array([[1, 0], [1, 1], [0, 0]], bool), np.array([[1, 1], [0, 1], [0, 0]], bool)
    counted = F1s.of(said, true)
    assert [counted.hits.tolist(), counted.wrong.tolist(), counted.missed.tolist()] == [[1, 1], [1, 0], [0, 1]]


@pytest.mark.parametrize("recall, false", [(0.5, 0.3), (0.9, 0.02), (0.2, 0.05)])
def test_the_interval_of_f1_covers_the_true_f1(recall: float, false: float):
    """8 classes of 12 test images each; a latent finds `recall` of them and `false` of the others, drawn anew."""
    rng, true = np.random.default_rng(6), np.repeat(np.eye(8, dtype=bool), 12, 0)
    rates = np.where(true, recall, false)
    drawn = [F1s.of(rng.random((96, 8)) < rates, true) for _ in range(2000)]
    mean, covered = np.mean([each.value for each in drawn]), 0
    for each in drawn[:300]:
        low, high = each.interval()
        covered += low <= mean <= high
    assert covered >= 279  # 93 %
