"""Splitting, absorption and shared latents, on toys whose answer is known."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn.metrics import f1_score

from cad_exp.evaluation.monosemanticity.absorption import absorption
from cad_exp.evaluation.monosemanticity.matching import shared
from cad_exp.evaluation.monosemanticity.splitting import splitting
from tests.evaluation.dictionaries import balanced, perfect, random, task


@pytest.mark.parametrize("parts", [1, 2, 3])
def test_a_class_is_split_over_as_many_latents_as_it_has(parts: int):
    classes = balanced(600, 4)
    found = splitting(perfect(classes, parts), task(classes))
    assert found.numbers.tolist() == [parts] * 4
    assert [sorted(each) for each in found.mains] == [list(range(c * parts, c * parts + parts)) for c in range(4)]
    assert found.f1[:, parts - 1] == pytest.approx(1.0)
    assert max(found.chance) < max(parts, 2)  # the other latents of the class are dealt out among images


def test_two_widths_are_compared_class_by_class():
    classes = balanced(600, 4)
    narrow, wide = splitting(perfect(classes), task(classes)), splitting(perfect(classes, 3), task(classes))
    assert wide.mean().change(narrow.mean()) == (2.0, None, None)  # the same for every class: no spread
    assert wide.mean().value == 3 and "classes" in wide.mean().words


def test_a_latent_counts_only_if_f1_jumps():
    """Of class 0 latent 0 finds all but the 20 % of which latent 1 finds all: F1 rises by .11."""
    classes = balanced(600, 2)
    codes = np.zeros((600, 3))
    few = (classes == 0) & (np.arange(600) % 10 < 2)
    codes[:, 0], codes[:, 1], codes[:, 2] = (classes == 0) & ~few, few, classes == 1
    own = task(classes)
    found = splitting(sparse.csr_matrix(codes), own)
    assert found.mains[0].tolist() == [0, 1] and found.mains[1].tolist() == [2]
    kept = own.split.validation
    assert found.f1[0, 0] == pytest.approx(f1_score(classes[kept] == 0, codes[kept, 0] > 0))
    assert np.isnan(found.f1[0, 2:]).all()  # latent 2 speaks against it
    rise = found.f1[0, 1] - found.f1[0, 0]
    assert splitting(sparse.csr_matrix(codes), own, jump=rise - 1e-6).mains[0].tolist() == [0, 1]
    assert splitting(sparse.csr_matrix(codes), own, jump=rise + 1e-6).mains[0].tolist() == [0]
    assert splitting(sparse.csr_matrix(codes), own, most=1).mains[0].tolist() == [0]


def test_latents_without_knowledge_show_how_often_noise_jumps():
    """One latent knows a class, the others nothing: what is found is what chance finds, about one latent."""
    classes = balanced(400, 4)
    own = sparse.hstack([perfect(classes), random(400, 60)]).tocsr()
    found = splitting(own, task(classes))
    assert found.numbers.tolist() == [1] * 4 == found.chance.tolist()
    few = [splitting(random(80, 60, seed=seed), task(classes[:80])) for seed in range(10)]
    chance, seen = (np.mean([getattr(each, name) for each in few]) for name in ("chance", "numbers"))
    assert chance > 1.3 and abs(chance - seen) < 0.4  # four validation images a class: noise jumps


def test_no_latent_that_speaks_for_a_class_means_none():
    found = splitting(sparse.csr_matrix((60, 3)), task(balanced(60, 2)))
    assert found.numbers.tolist() == [0, 0] and found.chance.tolist() == [0, 0]


# Activations are (8, 0, 0) in class 0 and (0, 8, 0) in class 1, with a third direction that says nothing. Latent 0 is
# class 0's own, 1 is class 1's; 2 is a child of class 0 that holds both its own direction and that of the class.
DECODER = np.array([[1.0, 0, 0], [0, 1.0, 0], [0.8, 0, 0.6], [0, 0, 1.0]])


def toy(every: int = 4) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Codes, activations and classes in which every so many images of class 0 have the child instead of latent 0."""
    classes = balanced(400, 2)
    rng = np.random.default_rng(0)
    activations = np.concatenate([8 * np.eye(2)[classes], np.zeros((400, 1))], 1) + 0.01 * rng.normal(size=(400, 3))
    codes = np.concatenate([activations[:, :2].clip(0.02) * np.eye(2)[classes], np.zeros((400, 2))], 1)
    child = (classes == 0) & (np.arange(400) // 2 % every == 0)
    codes[child, 0], codes[child, 2] = 0.0, 10.0
    return codes, activations, classes, child


def absorbed(codes, activations, classes, decoder=DECODER, mains=((0,), (1,)), **settings_):
    own = task(classes)
    return own, absorption(
        sparse.csr_matrix(codes), decoder, activations, own, [np.array(each) for each in mains], **settings_
    )


def test_absorption_by_hand():
    codes, activations, classes, child = toy()
    own, found = absorbed(codes, activations, classes)
    test = own.split.test
    assert found.absorbed[0].tolist() == child[test][classes[test] == 0].tolist() == found.silent[0].tolist()
    assert not found.absorbed[1].any() and set(found.absorbers[0]) == {2} and not len(found.absorbers[1])
    assert found.rate().value == pytest.approx(found.absorbed[0].mean() / 2) and found.absorbed[0].any()
    assert found.rate().change(found.rate())[0] == 0


def test_what_is_not_absorbed():
    codes, activations, classes, child = toy()
    speaking = codes.copy()
    speaking[child, 0] = 0.1  # the main latent acts, if only a little
    assert absorbed(speaking, activations, classes)[1].silence().value == 0
    empty = codes.copy()
    empty[child, 2] = 0.0  # nobody speaks
    _, found = absorbed(empty, activations, classes)
    assert found.silence().value > 0 and found.rate().value == 0
    aside, against = DECODER.copy(), DECODER.copy()
    aside[2], against[2] = (0.0, 0.0, 1.0), (-0.8, 0.0, 0.6)
    assert absorbed(codes, activations, classes, aside)[1].rate().value == 0
    assert absorbed(codes, activations, classes, against)[1].rate().value == 0
    slight = DECODER.copy()
    slight[2] = 0.1, 0.0, 0.995
    assert absorbed(codes, activations, classes, slight)[1].rate().value == 0  # too small a share
    assert absorbed(codes, activations, classes, slight, share=0.0)[1].rate().value > 0
    assert absorbed(codes, activations, classes, slight, share=0.0, cosine=0.2)[1].rate().value == 0
    with pytest.raises(ValueError, match=r"shape \(4, 3\) is wanted, not \(3, 3\)"):
        absorbed(codes, activations, classes, DECODER[:3])


def test_the_mean_of_the_activations_does_not_matter():
    codes, activations, classes, _ = toy()
    _, found = absorbed(codes, activations + np.array([1000.0, 0.0, 0.0]), classes)
    assert found.rate().value == absorbed(codes, activations, classes)[1].rate().value > 0
    assert absorbed(codes, activations - np.array([1000.0, 0.0, 0.0]), classes)[1].rate().value == found.rate().value


def test_an_activation_that_points_away_from_the_class_holds_nothing_to_absorb():
    """The probe takes off the second feature the noise that it shares with the first; the class lies in the first."""
    rng, classes = np.random.default_rng(1), balanced(400, 2)
    noise = 3 * rng.normal(size=400)
    activations = np.stack([noise + np.where(classes == 0, 1.0, -1.0), noise], 1)
    codes = sparse.csr_matrix((classes == 0)[:, None] * np.array([[0.0, 1.0]]))  # the main latent never acts
    own = task(classes)
    found = absorption(codes, np.eye(2)[[0, 0]], activations, own, [np.array([0])] * 2, share=0.0)
    rows = own.split.test[classes[own.split.test] == 0]
    assert len(found.silent[0]) == len(rows) and 0 < found.absorbed[0].mean() < 1
    train = own.split.train
    means = [activations[train][classes[train] == number].mean(0) for number in (0, 1)]
    projected = (activations[rows] - np.mean(means, 0)) @ (means[0] - means[1])
    assert found.absorbed[0].tolist() == (projected > 0).tolist()


def test_images_that_the_probe_misreads_do_not_count():
    codes, activations, classes, _ = toy()
    own = task(classes)
    wrong = own.split.test[classes[own.split.test] == 0][:5]
    activations[wrong] = (0.0, 8.0, 0.0)
    _, found = absorbed(codes, activations, classes)
    assert len(found.absorbed[0]) == (classes[own.split.test] == 0).sum() - 5


def test_chance_of_absorption_deals_out_the_other_directions():
    """Latents 2 and 3 swap theirs in half of the cases; then the child points aside and nothing is absorbed."""
    codes, activations, classes, _ = toy()
    codes[:4, 3], mains = 0.1, ((0, 1), (0, 1))  # latent 3 acts, so it takes part; main latents do not
    _, found = absorbed(codes, activations, classes, mains=mains, permutations=60)
    assert set(np.round(found.chance, 9)) == {0.0, round(found.rate().value, 9)}
    assert 0.2 < (found.chance == 0).mean() < 0.8
    codes[:, 3] = 0.0  # dead: nothing to swap with
    assert (absorbed(codes, activations, classes, mains=mains)[1].chance == found.rate().value).all()


def test_a_permuted_dictionary_is_shared_and_an_orthogonal_one_is_not():
    rng = np.random.default_rng(0)
    first, order = rng.normal(size=(30, 20)), rng.permutation(30)
    found = shared(first, 3 * first[order])
    assert found.share().value == 1 and found.cosines == pytest.approx(1.0) and found.chance < 0.5
    assert (order[found.partners] == np.arange(30)).all()
    assert shared(np.eye(4)[:2], np.eye(4)[2:]).share().value == 0
    assert shared(first, -first[:1]).share().value == 0
    noise = rng.normal(size=(30, 20))
    assert shared(first, noise).share().value == pytest.approx(shared(first, noise).chance, abs=0.1)


def test_one_partner_serves_one_latent_only():
    first = np.array([[1.0, 0], [1.0, 0.1], [1.0, -0.1], [0, 1.0]])
    found = shared(first, np.array([[2.0, 0], [0, 5.0]]))
    assert found.share().value == 0.5 and sorted(found.partners.tolist()) == [-1, -1, 0, 1]
    assert np.isnan(found.cosines).sum() == 2


def test_dead_latents_are_no_partners_and_do_not_count():
    alive, others = np.array([True, False, True, True]), np.array([True, True, False, True])
    found = shared(np.eye(4), np.eye(4), alive, others)
    assert found.partners[[0, 3]].tolist() == [0, 3] and found.partners[1] == -1 and found.cosines[2] == 0
    assert found.share().value == pytest.approx(2 / 3) and found.alive.tolist() == alive.tolist()
    assert shared(np.diag([1.0, 0, 1, 1]), np.eye(4)).alive.tolist() == alive.tolist()  # no direction is no latent


def test_in_few_dimensions_random_directions_find_partners_too():
    rng = np.random.default_rng(0)
    found = shared(rng.normal(size=(60, 2)), rng.normal(size=(60, 2)))
    assert found.chance > 0.8 and found.share().value > 0.8


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 5))
def test_the_matching_is_the_best_of_all(seed: int, size: int):
    rng = np.random.default_rng(seed)
    first, second = rng.normal(size=(size, 3)), rng.normal(size=(5, 3))
    found = shared(first, second)
    units = [each / np.linalg.norm(each, axis=1, keepdims=True) for each in (first, second)]
    cosines = units[0] @ units[1].T
    best = max(sum(cosines[a, b] for a, b in enumerate(each)) for each in permutations(range(5), size))
    assert found.cosines.sum() == pytest.approx(best)
    assert found.cosines == pytest.approx(cosines[np.arange(size), found.partners])
