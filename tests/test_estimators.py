"""Estimators against hand-computed scores, on an objective that is no network at all."""

import pytest
import torch

from cad_exp.components import Site
from cad_exp.errors import UserError
from cad_exp.estimators import ESTIMATORS, make_estimator

SITES = [Site("a", "a", "feed-forward", (2, 3)), Site("b", "b", "feed-forward", (1, 2))]
WEIGHTS = {"a": torch.tensor([[1.0, -2.0, 3.0], [0.0, 0.5, -1.0]]), "b": torch.tensor([[2.0, -4.0]])}
SLOPE = {"a": torch.tensor([[1.0, 1.0, -1.0], [2.0, 2.0, 2.0]]), "b": torch.tensor([[0.5, 0.25]])}


class Linear:
    """J(gates) = sum of gate * weight * slope: every effect is known exactly."""

    def weight(self, module):
        return WEIGHTS[module]

    def value_and_gradient(self, gates):
        terms = {name: WEIGHTS[name] * SLOPE[name] for name in gates}
        return sum(float((gates[name] * term).sum()) for name, term in terms.items()), terms


def test_first_order_is_exact_on_a_linear_objective():
    estimator = make_estimator("first_order")
    scores = estimator.estimate(Linear(), SITES)
    assert scores["a"].tolist() == [[1, -2, -3], [0, 1, -2]] and scores["b"].tolist() == [[1, -1]]
    assert estimator.intact == -5


def test_baselines_by_hand():
    assert make_estimator("magnitude").estimate(Linear(), SITES)["b"].tolist() == [[2, 4]]
    assert make_estimator("gradient_magnitude").estimate(Linear(), SITES)["a"].tolist() == [[1, 2, 3], [0, 1, 2]]


def test_random_repeats_itself_by_its_seed():
    first, again, other = (make_estimator("random", seed=seed).estimate(Linear(), SITES) for seed in (0, 0, 1))
    assert torch.equal(first["a"], again["a"]) and not torch.equal(first["a"], other["a"])


@pytest.mark.parametrize("name", ESTIMATORS)
def test_every_estimator_scores_every_weight(name, tiny_attribution, tiny_model, tiny_probes):
    from cad_exp.attribution import attribute

    scores = attribute(tiny_model, tiny_probes, "erase", name).scores
    assert {key: len(value) for key, value in scores.items()} == {
        key: len(value) for key, value in tiny_attribution.scores.items()
    }
    assert (name in ("magnitude", "gradient_magnitude")) == bool((scores["weight"] >= 0).all())


def test_an_unknown_name():
    with pytest.raises(UserError, match="did you mean 'magnitude'"):
        make_estimator("magnitud")
