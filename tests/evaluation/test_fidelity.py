"""Fidelity on games whose every effect is known by hand, and against scipy."""

import math
import warnings
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.image import imread

from cad_exp.attribution.game import Game
from cad_exp.attribution.objectives.build import make_objective
from cad_exp.evaluation.fidelity.ablations import Ablation, ablation_fidelity, effects, negative_check, ordered_curves
from cad_exp.evaluation.fidelity.metrics import agreement_metrics, check, describe, fidelity_metrics, proxy_metrics
from cad_exp.evaluation.fidelity.statistics import agreement, growth, halves, random_weights, sanity, spread, stability
from cad_exp.interventions.spaces import find_sites, make_granularity
from cad_exp.reporting.figures.fidelity import curves, scatter
from cad_exp.reporting.schema import FIELDS
from cad_exp.utils.errors import UserError


class Toy:
    """J(gates) = 3 + sum of gate * effect + strength * (mean of the gates)^2; counts what it is asked."""

    def __init__(self, effect, strength=0.0):
        self.effect, self.strength = torch.as_tensor(effect, dtype=torch.float64), strength
        self.n, self.asked = len(self.effect), 0
        self.intact = float(self.values(torch.ones(1, self.n))[0])
        self.asked = 0

    def values(self, gates):
        self.asked += len(gates)
        return 3 + gates.double() @ self.effect + self.strength * gates.double().mean(1) ** 2


def linear(n=100, seed=0):
    return torch.randn(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


SETTINGS = {"number": 12, "rates": [0.05, 0.2], "kinds": ["uniform", "top"], "noisy_latents": 32, "bootstrap": 100}
SETTINGS |= {"fractions": [0.5, 1.0], "repeats": 4, "negative": 0.1, "draws": 8, "images": None, "sanity": []}


# Predicted against true


def test_a_linear_game_is_predicted_without_error():
    effect = linear(1000)
    records, found = ablation_fidelity(Toy(effect), effect, number=10)
    np.testing.assert_allclose(records["predicted"], records["true"], atol=1e-9)
    assert len(records) == 2 * 5 * 10 and len(found) == 2 * 5
    for each in found:
        assert each["n"] == 10 and each["rate"] is not None
        for name in ("pearson", "spearman", "slope", "r2"):
            np.testing.assert_allclose(each[name], 1, atol=1e-6)
        np.testing.assert_allclose(each["bias"], 0, atol=1e-9)
        assert each["intercept"] == pytest.approx(0, abs=1e-9) and each["sign"][0] == 1


def test_effects_by_hand():
    game = Toy([1.0, -2.0, 4.0])
    rows = effects(game, torch.tensor([1.0, -1.0, 2.0]), [Ablation("a", "b", 0.5, 7, np.array([0, 2]))], 1)
    assert rows.to_dict("records") == [
        {"study": "a", "kind": "b", "rate": 0.5, "draw": 7, "size": 2, "predicted": -3.0, "true": -5.0}
    ]


def test_sizes_and_pools():
    seen = []

    class Watched(Toy):
        def values(self, gates):
            seen.extend(set((row == 0).nonzero().flatten().tolist()) for row in gates)
            return super().values(gates)

    effect = torch.arange(-50.0, 50.0)
    game = Watched(effect)
    seen.clear()
    records, _ = ablation_fidelity(game, effect, [0.001, 0.05, 0.1], 20, seed=3)
    assert records.groupby(["kind", "rate"])["size"].unique().map(list).to_dict() == {
        ("uniform", 0.001): [1],
        ("uniform", 0.05): [5],
        ("uniform", 0.1): [10],
        ("top", 0.001): [1],
        ("top", 0.05): [5],
        ("top", 0.1): [10],
    }
    # rate 0.001 and kind top: one out of the two best, so there are two subsets and not 20
    assert len(records) == 5 * 20 + 2
    for kind, rate, pool in (("top", 0.05, range(90, 100)), ("top", 0.1, range(80, 100))):
        chosen = [s for s, row in zip(seen, records.itertuples(), strict=True) if (row.kind, row.rate) == (kind, rate)]
        assert set().union(*chosen) == set(pool) and len(set(map(frozenset, chosen))) == 20


def test_rates_that_come_to_the_same_size_share_their_ablations():
    game = Toy(linear(21))
    records, found = ablation_fidelity(game, game.effect, [0.01, 0.05, 0.1], 40, ["uniform"])
    # one of 21: each once, for both rates; two of 21: 40 of the 210 pairs
    assert game.asked == 21 + 40 and len(records) == 21 + 21 + 40
    assert [each["n"] for each in found] == [21, 21, 40]
    singles = records[records["rate"] == 0.01]
    np.testing.assert_allclose(sorted(singles["true"]), sorted(-game.effect), atol=1e-12)


def test_uniform_ablations_are_the_same_for_every_estimator_and_a_longer_study_begins_with_the_shorter():
    game = Toy(linear())
    short = ablation_fidelity(game, game.effect, [0.1], 5, ["uniform"])[0]
    longer = ablation_fidelity(game, linear(seed=1), [0.1], 9, ["uniform"])[0]
    pd.testing.assert_series_equal(short["true"], longer["true"][:5])
    other = ablation_fidelity(game, game.effect, [0.1], 5, ["uniform"], seed=1)[0]
    assert not np.allclose(short["true"], other["true"])


@pytest.mark.parametrize("n, size, number", [(21, 2, 1000), (56, 1, 1000), (10, 5, 400), (100, 5, 60)])
def test_a_short_study_begins_a_long_one_also_where_subsets_run_out(n, size, number):
    rate = size / n
    short, longer = (ablation_fidelity(Toy(linear(n)), linear(n), [rate], k, ["uniform"])[0] for k in (8, number))
    assert short["true"].tolist() == longer["true"][:8].tolist()
    assert len(longer) == min(number, math.comb(n, size))


def test_top_with_few_or_no_positive_scores():
    scores = torch.full((50,), -1.0)
    records, found = ablation_fidelity(Toy(linear(50)), scores, [0.1], 10, ["top"])
    assert len(records) == 0 and all(each["n"] == 0 and each["pearson"] is None for each in found)
    scores[:4] = torch.tensor([1.0, 2.0, 3.0, 4.0])
    records, _ = ablation_fidelity(Toy(linear(50)), scores, [0.1, 0.2], 10, ["top"])
    assert set(records["size"]) == {2} and len(records) == 2 * 6  # half of the four, all six pairs, for both rates


def test_constant_input_gives_nothing_and_no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _, found = ablation_fidelity(Toy(linear()), torch.zeros(100), [0.1], 10, ["uniform"])
        assert found[0]["pearson"] is found[0]["spearman"] is found[0]["slope"] is found[0]["intercept"] is None
        flat = agreement([1.0, 2.0, 3.0], [0.1, 0.1, 0.1])
        assert flat["pearson"] is None and flat["spearman"] is None and flat["slope"][0] == 0
        assert agreement([1.0, 2.0], [1.0, 2.0])["pearson"] is None
        # -0.3 summed in different orders differs in its last bits: that is no variation
        assert agreement(np.array([0.1 + 0.2, 0.3, 0.3]), [1, 2, 3])["pearson"] is None


def test_right_and_wrong_predictions_by_hand():
    """true - predicted is 2, 1, 3 and 0; signs agree in the second pair and in the last, both of which are zero."""
    found = agreement([-1.0, 1.0, -2.0, 0.0], [1.0, 2.0, 1.0, 0.0], resamples=200)
    assert found["bias"][0] == pytest.approx((2 + 1 + 3 + 0) / 4) and found["relative_bias"] == pytest.approx(1.5)
    assert found["sign"][0] == 0.5
    assert found["r2"][0] == pytest.approx(1 - (4 + 1 + 9 + 0) / (0 + 1 + 0 + 1))
    for name in ("bias", "r2"):
        assert found[name][1] <= found[name][0] <= found[name][2]


def test_predictions_that_point_the_wrong_way_are_called_so_though_they_correlate():
    """The README's first command at 20 %: Pearson is high, and every sign is wrong."""
    true = np.linspace(0.001, 0.002, 16)
    found = agreement(true - 0.003, true)
    assert (found["pearson"][0], found["slope"][0]) == pytest.approx((1, 1))
    assert found["sign"][0] == 0 and found["sign"][2] < 0.25 and found["r2"][0] < -50
    assert found["bias"][0] == pytest.approx(0.003) and found["relative_bias"] == pytest.approx(2)


def test_shares_of_signs_have_wilsons_interval():
    for equal, n in ((16, 16), (0, 16), (5, 64), (1, 1)):
        predicted = np.where(np.arange(n) < equal, 1.0, -1.0)
        z, p = scipy.stats.norm.ppf(0.975), equal / n
        middle, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        ends = [(middle + side * half) / (1 + z * z / n) for side in (-1, 1)]
        assert agreement(predicted, np.ones(n), 10)["sign"][1:] == pytest.approx(ends, abs=1e-9)


def test_r2_equals_scikit_learn_and_needs_a_truth_that_varies():
    from sklearn.metrics import r2_score

    rng = np.random.default_rng(1)
    x, y = rng.normal(size=30), rng.normal(size=30)
    assert agreement(x, y, 10)["r2"][0] == pytest.approx(r2_score(y, x))
    flat = agreement(x, np.ones(30), 10)
    assert flat["r2"] is None and flat["bias"][0] == pytest.approx(1 - x.mean()) and flat["sign"] is not None
    nothing = agreement([], [])
    assert nothing["n"] == 0 and all(value is None for name, value in nothing.items() if name != "n")


def test_agreement_equals_scipy():
    rng = np.random.default_rng(0)
    x = rng.normal(size=60).round(1)  # with ties
    y = 0.5 * x + rng.normal(size=60).round(1)
    found, line = agreement(x, y, 4000), scipy.stats.linregress(x, y)
    assert found["pearson"][0] == pytest.approx(scipy.stats.pearsonr(x, y).statistic)
    assert found["spearman"][0] == pytest.approx(scipy.stats.spearmanr(x, y).statistic)
    assert found["slope"][0] == pytest.approx(line.slope) and found["intercept"] == pytest.approx(line.intercept)
    for name, statistic in (
        ("pearson", lambda a, b: scipy.stats.pearsonr(a, b).statistic),
        ("spearman", lambda a, b: scipy.stats.spearmanr(a, b).statistic),
        ("slope", lambda a, b: scipy.stats.linregress(a, b).slope),
    ):
        known = scipy.stats.bootstrap(
            (x, y), statistic, paired=True, vectorized=False, n_resamples=3000, method="percentile", rng=1
        ).confidence_interval
        assert found[name][1:] == pytest.approx((known.low, known.high), abs=0.05), name


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.floats(0.01, 100))
def test_scaling_scores_changes_only_the_slope(seed, factor):
    game = Toy(linear(40, seed), strength=5.0)
    scores = game.effect + 0.3 * linear(40, seed + 1)
    _, plain = ablation_fidelity(game, scores, [0.1, 0.3], 8, resamples=20)
    _, scaled = ablation_fidelity(game, scores * factor, [0.1, 0.3], 8, resamples=20)
    for one, other in zip(plain, scaled, strict=True):
        assert one["n"] == other["n"]
        for name in ("pearson", "spearman"):
            np.testing.assert_allclose(one[name], other[name], atol=1e-7)
        np.testing.assert_allclose(one["slope"], np.array(other["slope"]) * factor, rtol=1e-6, atol=1e-9)
        assert one["intercept"] == pytest.approx(other["intercept"], abs=1e-6)


@settings(max_examples=25, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(0, 1000))
def test_the_order_of_components_means_nothing(shuffler, seed):
    order = list(range(30))
    shuffler.shuffle(order)
    order = torch.tensor(order)
    effect, other = linear(30, seed), linear(30, seed + 1)
    game, moved = Toy(effect, 2.0), Toy(effect[order], 2.0)
    # `top` draws by rank and not by number
    one = ablation_fidelity(game, other, [0.1], 6, ["top"], resamples=10)[0]
    two = ablation_fidelity(moved, other[order], [0.1], 6, ["top"], resamples=10)[0]
    np.testing.assert_allclose(one["predicted"], two["predicted"])
    np.testing.assert_allclose(one["true"], two["true"], atol=1e-9)
    one, two = (ordered_curves(g, s, orders=["most", "least"])[0] for g, s in ((game, other), (moved, other[order])))
    np.testing.assert_allclose(one["true"], two["true"], atol=1e-9)
    one, two = (negative_check(g, s, 0.1, draws=0)[1] for g, s in ((game, other), (moved, other[order])))
    assert one["negative"] == pytest.approx(two["negative"]) and one["smallest"] == pytest.approx(two["smallest"])
    same, again = stability([effect, other]), stability([effect[order], other[order]])
    assert same["spearman"] == pytest.approx(again["spearman"]) and same["overlap"] == again["overlap"]


def test_mistakes_are_explained():
    game = Toy(linear())
    with pytest.raises(UserError, match="not 5"):
        ablation_fidelity(game, game.effect, [5])
    with pytest.raises(UserError, match="did you mean 'uniform'"):
        ablation_fidelity(game, game.effect, kinds=["unifrom"])
    with pytest.raises(UserError, match="do not fit 100 components"):
        ablation_fidelity(game, game.effect[:7])
    with pytest.raises(UserError, match="0..1"):
        ordered_curves(game, game.effect, [2.0])
    game.effect[:] = float("nan")
    with pytest.raises(UserError, match="not finite"):
        ablation_fidelity(game, torch.ones(100), [0.5], 3)


def test_single_components_are_held_against_their_exact_effects():
    game = Toy(linear(30), 2.0)
    records, found = ablation_fidelity(game, game.effect, [0.1, 0.2], 40, ["single"])
    assert len(records) == 30 and set(records["size"]) == {1} and [each["rate"] for each in found] == [None]
    exact = [float(game.values(row[None])[0]) - game.intact for row in 1 - torch.eye(30)]
    assert found[0]["pearson"][0] == pytest.approx(scipy.stats.pearsonr(-game.effect, exact).statistic)
    assert len(ablation_fidelity(game, game.effect, [0.1], 7, ["single"])[0]) == 7


def test_a_question_to_the_game_holds_ablations_of_one_size():
    asked = []

    class Listening(Toy):
        def values(self, gates):
            asked.append((gates == 0).sum(1).tolist())
            return super().values(gates)

    ablation_fidelity(Listening(linear()), linear(), [0.1, 0.2], 5, ["uniform", "single"])
    assert asked[1:] == [[10] * 5, [20] * 5, [1] * 5]


# From J to images


def test_proxies_by_hand():
    """J and the images' measure, true changes under the same ablations: joined row by row."""
    keys = {"study": "ablations", "kind": "uniform", "draw": range(4), "size": 5, "predicted": 0.0}
    records = pd.DataFrame(keys | {"rate": 0.1, "true": [1.0, 2.0, 3.0, 4.0]})
    curve = records.assign(study="curve", true=100.0)
    images = pd.DataFrame(keys | {"rate": 0.1, "true": [2.0, 4.0, 6.0, 5.0]})[::-1]
    found = proxy_metrics(pd.concat([records, curve]), images, {}, 50, 0, "images_rate", "the rate")
    assert [metric["name"] for metric in found] == ["images_rate_proxy@0.1"], "rates are never mixed"
    assert found[0]["value"] == pytest.approx(scipy.stats.pearsonr([1, 2, 3, 4], [2, 4, 6, 5]).statistic)
    assert found[0]["n"] == 4 and "the rate" in found[0]["definition"]["what"]
    shared = [pd.concat([table, table.assign(rate=0.2)]) for table in (records, images)]
    assert proxy_metrics(*shared, {}, 50, 0, "images_rate", "the rate")[-1]["n"] == 4, "one ablation of two rates"


# Ordered curves


def test_curves_by_hand():
    game = Toy([1.0, 3.0, -2.0, 0.0])
    records, areas = ordered_curves(game, game.effect, [0.25, 0.5, 0.75, 1.0], random_repeats=6)
    lines = {kind: list(rows["true"]) for kind, rows in records[records["draw"] == 0].groupby("kind")}
    assert lines["most"] == [0, -3, -4, -4, -2] and lines["least"] == [0, 2, 2, 1, -2]
    # trapezoids of width 1/4: most -3, least 1; |J(1) - J(0)| = 2
    random = [
        rows["true"].iloc[1:-1].sum() / 4 + rows["true"].iloc[-1] / 8
        for _, rows in records[records["kind"] == "random"].groupby("draw")
    ]
    assert areas["most"]["area"][0] == pytest.approx((np.mean(random) - -3) / 2)
    assert areas["least"]["area"][0] == pytest.approx((1 - np.mean(random)) / 2)
    assert areas["most"]["n"] == 6 and areas["most"]["area"][1] > 0
    assert game.asked == 1 + 4 * 8


def test_curves_of_a_game_that_ends_where_it_began_or_without_random_order():
    game = Toy([1.0, -1.0])
    assert ordered_curves(game, game.effect, [0.5, 1])[1]["most"]["area"] is None
    assert ordered_curves(Toy([1.0, 2.0]), torch.ones(2), [0.5, 1], ["least"])[1] == {"least": {"area": None, "n": 0}}


def test_random_scores_have_no_area():
    game = Toy(linear(200).abs())
    assert abs(ordered_curves(game, linear(200, 5), random_repeats=20)[1]["most"]["area"][0]) < 0.1


# Stability


def test_stability_by_hand():
    scores = torch.arange(100.0)
    swapped = scores.clone()
    swapped[[99, 0]] = swapped[[0, 99]]
    found = stability([scores, scores, swapped])
    known = scipy.stats.spearmanr(scores, swapped).statistic
    assert found["pairs"] == 3 and found["spearman"] == pytest.approx((1 + 2 * known) / 3)
    assert found["overlap"][0.05] == pytest.approx((1 + 2 * 0.8) / 3) and found["overlap"][0.01] == pytest.approx(1 / 3)
    assert stability([scores, 2 * scores])["stable"]
    noisy = stability([scores, linear()])
    assert not noisy["stable"] and "not yet stable" in noisy["verdict"]
    assert "undefined" in stability([scores, torch.ones(100)])["verdict"]
    with pytest.raises(UserError, match="at least two"):
        stability([scores])


def test_agreement_of_halves_grows_with_the_noisy_latents():
    truth = linear(300)

    def estimate(number):
        return [truth + linear(300, 7 * number + half) / number**0.5 for half in (1, 2)]

    found = growth(estimate, [400, 4, 40])
    assert [each["noisy_latents"] for each in found] == [4, 40, 400]
    assert found[0]["spearman"] < found[1]["spearman"] < found[2]["spearman"]
    assert [each["stable"] for each in found] == [False, False, True]


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 900), st.integers(1, 100), st.integers(1, 50), st.integers(0, 5))
def test_noisy_latents_are_spread_and_halves_have_none_in_common(total, number, steps, seed):
    chosen = spread(total, number, seed)
    assert len(chosen) == min(total, number) and len(set(chosen.tolist())) == len(chosen)
    assert 0 <= chosen.min() and chosen.max() < total and (chosen.diff() > 0).all()
    one, two = halves(total, number, steps, seed)
    assert not set(one.tolist()) & set(two.tolist()) and max([*one.tolist(), *two.tolist()]) < total
    if total // steps >= 2:
        assert not set((one // steps).tolist()) & set((two // steps).tolist())


# Sanity


def test_sanity_by_hand():
    scores = linear()
    found = sanity(scores, {"same": scores * 2, "other": linear(seed=9), "mirrored": -scores, "flat": torch.ones(100)})
    assert found["same"]["spearman"] == pytest.approx(1) and found["same"]["overlap"] == 1
    assert found["mirrored"]["pearson"] == pytest.approx(-1) and found["mirrored"]["overlap"] == 0
    assert {name: each["passed"] for name, each in found.items()} == {
        "same": False,
        "other": True,
        "mirrored": False,
        "flat": False,
    }
    assert found["flat"]["pearson"] is None


def test_random_weights_are_shuffled_and_come_back_bit_for_bit(tiny_model):
    network = tiny_model.denoiser
    before = {name: weight.detach().clone() for name, weight in network.named_parameters()}
    with pytest.raises(KeyboardInterrupt), random_weights(network, 0):
        for name, weight in network.named_parameters():
            same = torch.equal(weight, before[name])
            assert same == (weight.ndim == 1), name
            torch.testing.assert_close(weight.flatten().sort().values, before[name].flatten().sort().values)
        raise KeyboardInterrupt
    assert all(torch.equal(weight, before[name]) for name, weight in network.named_parameters())


# Negative components


def test_negative_check_by_hand():
    effect = torch.tensor([5.0, -4.0, -3.0, 0.5, 2.0, 1.0, 1.0, 3.0, -0.1, 2.0])
    records, found = negative_check(Toy(effect), effect, 0.2, draws=30)
    assert (found["size"], found["passed"]) == (2, True)
    assert (found["negative"], found["predicted"]) == pytest.approx((7, 7))
    assert found["smallest"] == pytest.approx(-0.4) and found["random"][0] < 2
    assert len(records) == 32 and (records["size"] == 2).all()
    # scores of the wrong sign: what they call negative helps
    assert not negative_check(Toy(effect), -effect, 0.2, draws=30)[1]["passed"]


def test_fewer_or_no_negative_components():
    assert negative_check(Toy([1.0, 2.0, -1.0, 3.0]), torch.tensor([1.0, 2, -1, 3]), 0.9, draws=2)[1]["size"] == 1
    records, found = negative_check(Toy([1.0, 2.0]), torch.ones(2), 0.5)
    assert len(records) == 0 and found["size"] == 0 and found["passed"] is None


# Into results.json


def test_metrics_have_the_schema_and_say_what_they_are():
    game = Toy(linear(), 1.0)
    game.objective = SimpleNamespace(name="projection", latents=range(32))
    game.space = SimpleNamespace(name="neuron", kinds=("feed-forward",))
    metrics, records = fidelity_metrics(game, game.effect, SETTINGS, 0, {"estimator": "first_order"})
    assert {metric["variant"] for metric in metrics} == {"attribution"}
    assert all(tuple(metric) == FIELDS for metric in metrics)
    names = [metric["name"] for metric in metrics]
    assert len(set(names)) == len(names) == 2 * 2 * 6 + 2 + 3 and not any("@all" in name for name in names)
    assert {"fidelity_pearson@0.05", "fidelity_sign_top@0.2", "fidelity_area_most", "fidelity_change_negative@0.1"} < {
        *names
    }
    bias = next(metric for metric in metrics if metric["name"] == "fidelity_bias@0.2")
    assert bias["definition"]["relative"] is not None and "true minus the predicted" in bias["definition"]["what"]
    images = fidelity_metrics(game, game.effect, SETTINGS, prefix="images_rate", of="the rate")[0]
    seen = {metric["name"].partition("@")[0] for metric in images}
    assert not {"images_rate_bias", "images_rate_sign", "images_rate_r2"} & seen, "they predict J and not the rate"
    for metric in metrics:
        said = metric["definition"]
        assert said["objective"] == "projection" and said["estimator"] == "first_order" and said["noisy_latents"] == 32
        assert said["granularity"] == "neuron" and said["seed"] == 0 and said["what"]
    assert list(records["study"].unique()) == ["ablations", "curve", "negative"]
    assert list(records.columns) == ["study", "kind", "rate", "draw", "size", "predicted", "true"]


def test_nothing_asked_is_nothing_measured():
    game = Toy(linear())
    nothing = SETTINGS | {"number": 0, "fractions": [], "negative": None}
    metrics, records = fidelity_metrics(game, game.effect, nothing)
    assert metrics == [] and len(records) == 0 and game.asked == 0


def test_agreement_as_metrics():
    game = Toy(linear())
    found = agreement_metrics(
        describe(game, 0, {"between": "the halves of the noisy latents"}),
        [stability([game.effect, game.effect])],
        sanity(game.effect, {"random_weights": linear(seed=3)}),
    )
    assert [metric["name"] for metric in found] == [
        "stability_spearman",
        "stability_overlap@0.01",
        "stability_overlap@0.05",
        "stability_overlap@0.1",
        "sanity_random_weights",
    ]
    assert all(tuple(metric) == FIELDS for metric in found) and "halves" in found[0]["definition"]["what"]
    grown = agreement_metrics(describe(game, 0), growth(lambda _: [game.effect, game.effect], [50, 25]))
    assert [metric["name"] for metric in grown[::4]] == [
        "stability_spearman_25_noisy_latents",
        "stability_spearman_50_noisy_latents",
    ]


def test_settings_are_checked_before_any_work():
    check(None)
    check(SETTINGS)
    few = {"images": {"samples": 4, "number": 2, "kinds": ["uniform"]}}
    for wrong in ({"rates": [2]}, {"kinds": ["tops"]}, {"number": 2}, {"noisy_latents": 0}, {"negative": 3}, few):
        with pytest.raises(UserError):
            check(SETTINGS | wrong)
    church = {"prompt": "church", "base_prompt": "", "evaluation_prompts": ["a photo of a church"], "label": None}
    with pytest.raises(UserError, match=r"images=null"):
        check(SETTINGS | {"images": {"samples": 4, "number": 0, "kinds": []}}, church)
    with pytest.raises(UserError, match="only the concept itself"):
        check(SETTINGS | {"sanity": ["a photo of a church"]}, church)
    check(SETTINGS | {"sanity": ["a photo of a church", "a photo of a tench"]}, church)


# Pictures


def test_pictures(tmp_path):
    game = Toy(linear(), 5.0)
    records = fidelity_metrics(game, game.effect, SETTINGS)[1].assign(measure="J")
    both = pd.concat([records, records.assign(measure="rate")])
    drawn = curves(both, tmp_path / "b.png", "church", [("J", 3.0, "J"), ("rate", 1.0, "concept rate")])
    for path in (scatter(records, tmp_path / "a.png", "church"), drawn):
        picture = imread(path)
        assert picture.shape[1] > 1000 and picture.std() > 0.05
    assert {file.name for file in tmp_path.iterdir()} == {"a.png", "b.png"}
    one = records[(records["kind"] == "uniform") & (records["rate"] == 0.05)]
    assert scatter(one, tmp_path / "one.png").read_bytes() == scatter(one, tmp_path / "again.png").read_bytes()


# On a real network


@pytest.mark.parametrize("granularity", ["head", "layer", "weight"])
def test_gradient_scores_of_a_network(granularity, tiny_model, tiny_latents):
    latents = tiny_latents[spread(len(tiny_latents), 3)]
    objective = make_objective("projection", tiny_model, latents)
    game = Game(objective, make_granularity(granularity).on(find_sites(tiny_model.denoiser)))
    asked = SETTINGS | {"number": 8, "kinds": ["uniform"], "fractions": [], "negative": None}
    metrics, records = fidelity_metrics(game, game.value_and_gradient()[1], asked)
    assert len(records) == 16 and np.isfinite(records["true"]).all() and (records["true"] != 0).any()
    found = {metric["name"]: metric for metric in metrics}
    assert found["fidelity_pearson@0.05"]["value"] > 0.5
    assert metrics[0]["definition"]["noisy_latents"] == 3 and metrics[0]["definition"]["granularity"] == granularity
