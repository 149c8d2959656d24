"""Prototypes: balanced assignments by hand, a sum that never falls, and groups that anyone would find."""

import numpy as np
import pytest

from cad_exp.representations.prototypes import Prototypes, Standard, balanced, learn, normalised, objective, spread


def groups(seed: int = 0, each: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """Three groups of images along three axes, (60, 5), and which is which."""
    rng = np.random.default_rng(seed)
    centres = np.eye(5)[:3] * 4
    return np.concatenate([centre + 0.3 * rng.standard_normal((each, 5)) for centre in centres]), np.arange(60) // each


def test_assignments_of_two_images_to_two_prototypes_by_hand():
    # exp of the scores [[a, b], [b, a]] has equal columns: scaling the rows is all that is left to do
    found = balanced(np.log([[3.0, 1.0], [1.0, 3.0]]))
    assert found == pytest.approx(np.array([[0.75, 0.25], [0.25, 0.75]]))
    # both images prefer the first prototype by the same: balance leaves them half each
    assert balanced(np.log([[9.0, 1.0], [9.0, 1.0]])) == pytest.approx(np.full((2, 2), 0.5))


def test_rows_add_up_to_one_and_prototypes_get_equal_shares():
    scores = np.random.default_rng(1).standard_normal((90, 6)) * 3
    found = balanced(scores, 300)
    assert found.sum(1) == pytest.approx(np.ones(90)) and found.sum(0) == pytest.approx(np.full(6, 15.0), rel=1e-3)
    assert balanced(scores + 700 * np.arange(90)[:, None], 300) == pytest.approx(found)  # a row's own offset is nothing


def test_the_sum_never_falls_as_assignments_and_prototypes_take_turns():
    x, _ = groups(2)
    units = Standard.of(x).unit(x)
    directions, before = spread(units, 3, np.random.default_rng(0)), -np.inf
    for _ in range(20):
        scores = units @ directions.T
        shared = balanced(scores / 0.1, 300)
        now = objective(scores, shared, 0.1)
        assert now >= before - 1e-6
        assert (shared * (units @ normalised(shared.T @ units).T)).sum() >= (shared * scores).sum() - 1e-9
        directions, before = normalised(shared.T @ units), now


def test_three_groups_are_found_again_on_other_images():
    (x, _), (other, truth) = groups(3), groups(4)
    found = learn(x, 3, seed=0).nearest(other)
    assert len({(a, b) for a, b in zip(found, truth, strict=True)}) == 3  # one prototype for each group
    assert np.array_equal(found, learn(x, 3, seed=0).nearest(other))


def test_directions_of_known_groups_are_those_of_their_means():
    x, truth = groups(5)
    made = Prototypes.named(x, truth, 3)
    units = Standard.of(x).unit(x)
    by_hand = np.stack([units[truth == k].sum(0) for k in range(3)])
    assert made.directions == pytest.approx(by_hand / np.linalg.norm(by_hand, axis=1, keepdims=True))
    assert np.array_equal(made.nearest(x), truth)


def test_a_feature_that_never_changes_is_no_trouble():
    x = np.concatenate([groups()[0], np.ones((60, 1))], 1)
    assert np.isfinite(learn(x, 3, 0).directions).all()
    assert normalised(np.zeros((1, 3))).tolist() == [[0.0, 0.0, 0.0]]
