"""Second order: games whose interactions are known by hand, a random quadratic, the tiny model's differences."""

import pytest
import torch

from cad_exp.attribution.attribute import spaces_of
from cad_exp.attribution.game import Game
from cad_exp.attribution.interactions.quadratic import Quadratic
from cad_exp.attribution.interactions.second_order import second_difference, second_order
from cad_exp.attribution.objectives.build import make_objective
from cad_exp.interventions.spaces import make_granularity


class Toy:
    """A game from a formula of gates (A, n) -> (A,), without a model."""

    def __init__(self, n, formula):
        self.n, self.formula = n, formula

    @property
    def intact(self):
        return self.values(torch.ones(1, self.n)).item()

    def values(self, gates):
        return self.formula(gates.double())

    def value_and_gradient(self, gates=None):
        gates = torch.ones(self.n) if gates is None else gates
        gates = gates.double()[None].requires_grad_()
        value = self.formula(gates).sum()
        value.backward()
        return value.item(), gates.grad[0].float()

    def deal(self, number, seed):
        return [self] * number


ALL = torch.tensor([[1.0, 1.0], [0.0, 1.0], [1.0, 0.0], [0.0, 0.0]])


@pytest.mark.parametrize(
    ("formula", "pair"),
    [
        (lambda g: g[:, 0] * g[:, 1], 1.0),  # AND: either loss takes all, the second costs nothing more
        (lambda g: g[:, 0] + g[:, 1] - g[:, 0] * g[:, 1], -1.0),  # OR, a backup: only both losses count
        (lambda g: 2 * g[:, 0] + 3 * g[:, 1], 0.0),  # a sum has no interactions
        (lambda g: (g[:, 0] - g[:, 1]) ** 2, -2.0),
    ],
)
def test_interactions_of_two_gates_by_hand(formula, pair):
    toy = Toy(2, formula)
    found = second_order(toy)
    assert found.pairs[0, 1].item() == pytest.approx(pair, abs=1e-6)
    assert second_difference(toy, 0, 1) == pytest.approx(pair, abs=1e-6)
    # to second order all these are exact
    torch.testing.assert_close(found.predict(ALL), toy.values(ALL) - toy.intact, atol=1e-6, rtol=1e-6)


def quadratic(n, rank=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    linear, rows = torch.randn(n, generator=generator).double(), torch.randn(rank, n, generator=generator).double() / n
    return Toy(n, lambda g: g @ linear / n + ((g - 1) @ rows.T).square().sum(1))


def drawn(n, number, seed):
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(number, n, generator=generator) > 0.2).float()


def test_every_pair_of_a_quadratic_game_is_found():
    toy = quadratic(12)
    gates = drawn(12, 20, 1)
    torch.testing.assert_close(second_order(toy).predict(gates), toy.values(gates) - toy.intact, atol=1e-6, rtol=1e-5)


def test_of_many_components_two_numbers_predict_random_sets():
    """All fade together, and each bends J by itself: both are seen; first order misses them."""
    n = 400
    toy = Toy(n, lambda g: 1 - g.mean(1) ** 2 + ((g - 1) ** 2).mean(1) / 2)
    found, gates = second_order(toy, few=10), drawn(n, 30, 2)
    true = toy.values(gates) - toy.intact
    torch.testing.assert_close(found.predict(gates), true, atol=1e-3, rtol=1e-3)
    assert found.pairs is None and found.trace == pytest.approx(1, abs=0.02)
    assert float(((gates.double() - 1) @ found.scores - true).abs().max()) > 0.05


@pytest.mark.parametrize("share", [0.05, 0.2])
def test_interactions_are_those_among_random_ablations(share):
    """A game that divides by the size of its input: all may fade unseen, but not some of them go."""
    n, generator = 400, torch.Generator().manual_seed(0)
    weights = torch.randn(n, generator=generator).double() + 1
    toy = Toy(n, lambda g: (g @ weights) / n / g.square().mean(1).sqrt())
    gates = (torch.rand(40, n, generator=generator) > share).float()
    true, found = toy.values(gates) - toy.intact, second_order(toy, few=10).predict(gates)
    assert float(1 - (found - true).square().sum() / (true - true.mean()).square().sum()) > 0.98


@pytest.mark.parametrize("name", ["erase", "projection"])
def test_pairs_are_how_one_ablation_changes_the_other_effect(name, tiny_model, tiny_latents):
    space = spaces_of(tiny_model, [make_granularity("layer", ["cross-attention", "self-attention"])])[0]
    game = Game(make_objective(name, tiny_model, tiny_latents[torch.arange(2)], 4), space)

    def slope(of: int, without: int, step: float = 0.02) -> float:
        gates = torch.ones(2, game.n)
        gates[:, without] = 0
        gates[0, of], gates[1, of] = 1 + step, 1 - step
        up, down = game.values(gates).tolist()
        gates[:, without] = 1
        intact_up, intact_down = game.values(gates).tolist()
        return (intact_up - intact_down - up + down) / (2 * step)

    found = second_order(game)
    for i, j in ((0, 1), (2, 5), (1, game.n - 1)):
        true = (slope(i, j) + slope(j, i)) / 2
        assert found.pairs[i, j].item() == pytest.approx(true, abs=0.05 * abs(true) + 1e-3 * abs(game.intact))
    alone = torch.ones(1, game.n)
    alone[0, 2] = 0
    assert found.predict(alone).item() == pytest.approx(game.values(alone).item() - game.intact, rel=1e-3, abs=1e-7)


def test_a_squared_distance_of_many_components_is_sketched(tiny_model, tiny_latents):
    """For erase the sketch's first order is the scores, and its prediction of ablations beats their sum."""
    space = spaces_of(tiny_model, [make_granularity("neuron", ["cross-attention"])])[0]
    game = Game(make_objective("erase", tiny_model, tiny_latents, 4), space)
    found, gates = second_order(game, few=10), drawn(game.n, 12, 3)
    assert found.sketch is not None
    torch.testing.assert_close(found.scores.float(), game.value_and_gradient()[1], rtol=1e-2, atol=1e-7)
    true = game.values(gates).double() - game.intact
    first = (gates.double() - 1) @ found.scores
    assert float((found.predict(gates) - true).square().mean()) < float((first - true).square().mean())


def test_what_a_sketch_misses_is_measured(monkeypatch):
    """A distance that the sketch knows, from a network whose components back each other up, which it does not."""
    n = 400
    rows = torch.randn(5, n, generator=torch.Generator().manual_seed(0)) / n
    known = Quadratic.of(rows, torch.ones(5))
    toy = Toy(n, lambda g: known.value(g - 1) + 1 - (1 - g.mean(1)) ** 2 + ((g - 1) ** 2).mean(1) / 2)
    monkeypatch.setattr("cad_exp.attribution.interactions.second_order._is_distance", lambda game: True)
    monkeypatch.setattr("cad_exp.attribution.interactions.second_order._of_distance", lambda game, seed: known)
    found, gates = second_order(toy, few=10), drawn(n, 30, 2)
    true = toy.values(gates) - toy.intact
    torch.testing.assert_close(found.predict(gates), true, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(found.scores, known.linear)
    assert float((known.value(gates.double() - 1) - known.constant - true).abs().min()) > 0.03


@pytest.mark.parametrize("ablation", ["zero", "mean"])
def test_only_gates_that_scale_are_sketched(ablation, tiny_model, tiny_latents):
    """Where the mean takes a component's place, the sketch would be of another J."""
    space = spaces_of(tiny_model, [make_granularity("neuron", ["cross-attention"])])[0]
    game = Game(make_objective("erase", tiny_model, tiny_latents, 4, ablation=ablation), space)
    assert (second_order(game, few=10).sketch is not None) == (ablation == "zero")


@pytest.mark.parametrize(("rows", "latents", "projections"), [(100, 4, 4), (9, 4, 2), (5, 4, 1), (3, 3, 1), (0, 1, 1)])
def test_a_sketch_of_too_many_components_takes_fewer_rows(
    rows, latents, projections, tiny_model, tiny_latents, monkeypatch
):
    """First fewer projections, then fewer noisy latents. One more row of each lies along the distance."""
    space = spaces_of(tiny_model, [make_granularity("neuron", ["cross-attention"])])[0]
    monkeypatch.setattr("cad_exp.attribution.interactions.second_order.SKETCH_BYTES", rows * 4 * space.n)
    game = Game(make_objective("erase", tiny_model, tiny_latents[torch.arange(4)], 4), space)
    assert len(second_order(game, few=10).sketch.factor) == latents * (projections + 1)
