"""The probes that are trained: on toys whose answer is known, and that only training and validation rows matter."""

import numpy as np
import pytest
import torch

from cad_exp.representations.probes.base import Split, row_weights, split_images, thinned
from cad_exp.representations.probes.linear import LinearProbe
from cad_exp.representations.probes.maps import Fit, readings
from cad_exp.representations.probes.registry import PROBES, probe_settings
from cad_exp.utils.errors import UserError

TRAINED = ("attention", "mlp", "diffc")


def maps(number: int, side: int = 4, features: int = 6, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Class 1: at one position stands a strong feature 0; class 0: a strong feature 1. The mean hardly shows it."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, number)
    x = rng.normal(size=(number, side * side, features)).astype(np.float32)
    x[:, :, :2] *= 0.5
    x[np.arange(number), rng.integers(0, side * side, number), 1 - y] += 6
    return x, y


@pytest.mark.parametrize("name", ["attention", "diffc"])
@pytest.mark.parametrize("side", [4, 8])
def test_a_head_on_maps_finds_what_stands_in_one_position(name: str, side: int):
    x, y = maps(400, side)
    split = split_images(400, 0)
    fitted = PROBES.make({"name": name}).fit(x, y, split)
    reached = (fitted.predict(x[split.test]) == y[split.test]).mean()
    linear = LinearProbe().fit(x.mean(1), y, split)
    assert reached > 0.93
    assert side == 4 or reached > (linear.predict(x[split.test].mean(1)) == y[split.test]).mean()


def test_an_mlp_reads_what_no_line_separates():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(600, 2))
    y = (x[:, 0] * x[:, 1] > 0).astype(int)
    split = split_images(600, 0)
    mlp, linear = (PROBES.make({"name": name}).fit(x, y, split) for name in ("mlp", "linear"))
    said = [float((each.predict(x[split.test]) == y[split.test]).mean()) for each in (mlp, linear)]
    assert said[0] > 0.9 and said[1] < 0.7


def test_an_attention_head_without_training_is_the_mean_of_the_positions():
    """By hand: a query of 0 weighs all positions alike."""
    network = PROBES.make({"name": "attention"}).network((5, 3), 2)
    x = torch.randn(4, 5, 3)
    assert torch.allclose(network(x), network.read(x.mean(1)), atol=1e-6)
    with torch.no_grad():
        network.query.copy_(torch.tensor([0.0, 3.0, 0.0]) * 3**0.5)
    weights = (3 * x[:, :, 1]).softmax(1)
    assert torch.allclose(network(x), network.read((weights[..., None] * x).sum(1)), atol=1e-5)


@pytest.mark.parametrize("name", TRAINED)
def test_the_same_seed_gives_the_same_probe_and_no_generator_is_moved(name: str):
    probe = PROBES.make({"name": name, "epochs": 3})
    x, y = maps(120)
    x = x if probe.wants == "grid" else x.reshape(len(x), -1)
    split, state = split_images(120, 0), torch.get_rng_state()
    one, again, other = (probe.fit(x, y, split, seed=seed).values(x) for seed in (1, 1, 2))
    assert torch.equal(one, again) and not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("name", [*TRAINED, "linear"])
def test_test_rows_are_never_looked_at(name: str):
    settings = {"name": name} if name == "linear" else {"name": name, "epochs": 3}
    probe = PROBES.make(settings)
    x, y = maps(120)
    x = x if probe.wants == "grid" else x.reshape(len(x), -1)
    split = split_images(120, 0)
    changed, shuffled = x.copy(), y.copy()
    changed[split.test], shuffled[split.test] = 1e6, 0
    one, other = probe.fit(x, y, split), probe.fit(changed, shuffled, split)
    assert np.array_equal(one.values(x), other.values(x)) and one.validation == other.validation


@pytest.mark.parametrize("name", TRAINED)
def test_the_weight_decay_is_chosen_on_validation_rows(name: str):
    """One that forbids every weight reads nothing, and is not taken; the choice is what is reported."""
    probe = PROBES.make({"name": name, "decays": [0.01, 1000.0], "rate": 0.002})
    x, y = maps(300)
    x = x if probe.wants == "grid" else np.concatenate([x.mean(1), x.max(1)], 1)
    fitted = probe.fit(x, y, split_images(300, 0))
    assert fitted.strength == 0.01 and fitted.validation > 0.7


def test_training_stops_once_the_validation_rows_gain_nothing():
    """Labels of noise: the validation loss rises soon, and the first weights are nearly kept."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(100, 40)), rng.integers(0, 2, 100)
    split = split_images(100, 0)
    short, long = (
        PROBES.make({"name": "mlp", "epochs": epochs, "patience": 3, "decays": [0.0]}).fit(x, y, split)
        for epochs in (20, 500)
    )
    assert torch.equal(short.values(x), long.values(x))


def test_a_head_for_square_maps_says_what_it_cannot_read():
    x, y = np.zeros((60, 7, 3), np.float32), np.arange(60) % 2
    with pytest.raises(UserError, match="probe=diffc reads square maps"):
        PROBES.make({"name": "diffc"}).fit(x, y, split_images(60, 0))


@pytest.mark.parametrize("name", list(PROBES))
def test_what_a_head_wants_stands_on_its_class(name: str):
    assert PROBES.fact(name, "wants") == PROBES.get(name).wants


def test_settings_of_the_group_that_are_the_classifiers_own():
    given = {"name": "mlp", "seed": 1, "untrained": True, "width": 8, "fused": None}
    assert probe_settings(given) == {"name": "mlp", "width": 8}


def test_every_second_class_is_thinned_in_the_training_rows_only():
    y = np.repeat([0, 1, 2, 3], 25)
    split = split_images(100, 0)
    thin = thinned(y, split, 5, 0)
    counts, before = np.bincount(y[thin.train]), np.bincount(y[split.train])
    assert counts.tolist() == [before[0], before[1] // 5, before[2], before[3] // 5]
    assert np.isin(thin.train, split.train).all() and (np.diff(thin.train) > 0).all()
    assert thin.validation is split.validation and thin.test is split.test
    assert thinned(y, split, 1, 0) is split
    assert np.bincount(y[thinned(y, split, 1000, 0).train]).tolist() == [before[0], 1, before[2], 1]


def test_an_imbalanced_fit_reads_the_rare_class_better_with_equal_weights():
    rng = np.random.default_rng(0)
    y = np.arange(900) % 2
    x = rng.normal(size=(900, 4)) + 0.8 * y[:, None]
    split = split_images(900, 0)
    hows = (Fit(balanced=True, imbalance=20), Fit(balanced=False, imbalance=20))
    fair, plain = (next(readings(x, {"y": y}, split, LinearProbe(), how)) for how in hows)
    assert fair.right[fair.classes == 1].mean() > plain.right[plain.classes == 1].mean() + 0.2


def test_weights_of_rows_by_hand():
    assert row_weights(np.array([0, 0, 0, 1]), 2, True).tolist() == [4 / 6, 4 / 6, 4 / 6, 2.0]
    assert row_weights(np.array([0, 0, 0, 1]), 2, False).tolist() == [1.0] * 4
    with pytest.raises(UserError, match="class 1 has no training image"):
        PROBES.make({"name": "mlp"}).fit(np.ones((2, 2)), np.array([0, 1]), Split(*np.array([[0], [1], [1]])))
