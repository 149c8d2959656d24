"""Estimators on games that are no network at all: exact answers by hand, axioms, captum; then on the tiny model."""

from itertools import permutations

import pytest
import torch
from captum.attr import FeatureAblation, IntegratedGradients, ShapleyValues
from hypothesis import given, settings
from hypothesis import strategies as st

from cad_exp.attribution.estimators import ESTIMATORS, make_estimator
from cad_exp.attribution.estimators.base import Watch
from cad_exp.attribution.estimators.coar import ridge_regression
from cad_exp.attribution.estimators.patterns import balanced, stratified
from cad_exp.attribution.game import Game
from cad_exp.attribution.objectives.build import make_objective
from cad_exp.interventions.spaces import CROSS, FF, GRANULARITIES, OWN, Site, find_sites, make_granularity
from cad_exp.utils.errors import UserError
from tests.attribution.test_objectives import leftovers
from tests.placed import placed


class Toy(Game):
    """A game whose J is a function of gates (..., n) -> (...), known in closed form."""

    def __init__(self, function, n: int, cut: str = "head"):
        self.function, self.n, self.evaluations = function, n, 0
        self.space = make_granularity(cut).on([Site("a", "a", CROSS, (1, n), n)])
        self.objective = type("Objective", (), {"noisy_latents": [0], "progress": None})()

    @property
    def intact(self):
        return self.function(torch.ones(self.n).double()).item()

    def value(self, gates=None):
        return self.intact if gates is None else self.values(gates[None]).item()

    def values(self, gates):
        self.evaluations += len(gates)
        return self.function(gates.double())

    def value_and_gradient(self, gates=None):
        gates = (torch.ones(self.n) if gates is None else gates).double().requires_grad_()
        value = self.function(gates)
        return value.item(), torch.autograd.grad(value, gates)[0].float()


SLOPES = torch.tensor([3.0, -2.0, 0.0, 0.5, 1.0]).double()


def linear(gates):
    return gates @ SLOPES + 7


def additive(gates):
    """Each component on its own, but not along a line: effect of component i is SLOPES[i], gradient at 1 thrice it."""
    return gates.pow(3) @ SLOPES


def pairs(gates):
    """J = 4 g0 g1 + g2: the first two work only together."""
    return 4 * gates[..., 0] * gates[..., 1] + gates[..., 2]


def smooth(gates):
    """Everything meets everything."""
    return (gates @ SLOPES).tanh() * (1 + gates[..., 1] * gates[..., 4]) + (gates[..., 0] - gates[..., 3]).square()


EFFECT_ESTIMATORS = ("first_order", "integrated_gradients", "ablated_gradients", "leave_one_out", "coar", "shapley")


@pytest.mark.parametrize("name", EFFECT_ESTIMATORS)
def test_all_are_exact_on_a_linear_game(name):
    scores = make_estimator(name).estimate(Toy(linear, 5))
    torch.testing.assert_close(scores.values, SLOPES.float(), atol=1e-4, rtol=1e-4)
    assert scores.values.dtype == torch.float32 and scores.facts["passes"] >= 1
    assert scores.errors is None or scores.errors.max() < 1e-3, "no pattern differs from another"


@pytest.mark.parametrize("name", ["integrated_gradients", "leave_one_out", "coar", "shapley"])
def test_exact_on_an_additive_game(name):
    scores = make_estimator(name).estimate(Toy(additive, 5))
    torch.testing.assert_close(scores.values, SLOPES.float(), atol=1e-4, rtol=1e-4)


def test_gradients_on_an_additive_game():
    """g^3 has the slope 3 at 1 and 0 at 0: the trapezoid gives 3/2, and for g^2 the exact 1."""
    torch.testing.assert_close(make_estimator("first_order").estimate(Toy(additive, 5)).values, 3 * SLOPES.float())
    halves = make_estimator("ablated_gradients", patterns=16, rates=[0.5])
    torch.testing.assert_close(halves.estimate(Toy(additive, 5)).values, 1.5 * SLOPES.float())
    torch.testing.assert_close(halves.estimate(Toy(lambda gates: gates.square() @ SLOPES, 5)).values, SLOPES.float())


def test_interaction_by_hand():
    """J = 4 g0 g1 + g2. Each of the pair loses 4 alone; the path and Shapley share the 4; the plain gradient is 4."""
    expected = {"first_order": [4, 4, 1], "leave_one_out": [4, 4, 1], "integrated_gradients": [2, 2, 1]}
    expected["shapley"] = [2, 2, 1]
    for name, scores in expected.items():
        assert make_estimator(name).estimate(Toy(pairs, 3)).values.tolist() == pytest.approx(scores, abs=1e-5), name
    # With every pattern ablating exactly one of three, g1 is there in two thirds of the patterns that keep g0.
    scores = make_estimator("ablated_gradients", patterns=30, rates=[0.34], midpoint=False).estimate(Toy(pairs, 3))
    assert scores.values.tolist() == pytest.approx([8 / 3, 8 / 3, 1], abs=1e-5)
    scores = make_estimator("ablated_gradients", patterns=30, rates=[0.34]).estimate(Toy(pairs, 3))
    assert scores.values.tolist() == pytest.approx([(4 + 2) / 2, (4 + 2) / 2, 1], abs=1e-5)


def test_against_captum():
    ones, zeros = torch.ones(1, 5).double(), torch.zeros(1, 5).double()
    path = IntegratedGradients(smooth).attribute(ones, zeros, method="gausslegendre", n_steps=16)
    ours = make_estimator("integrated_gradients", steps=16).estimate(Toy(smooth, 5))
    torch.testing.assert_close(ours.values, path[0].float(), atol=1e-5, rtol=1e-5)
    alone = FeatureAblation(smooth).attribute(ones, zeros)
    torch.testing.assert_close(
        make_estimator("leave_one_out").estimate(Toy(smooth, 5)).values, alone[0].float(), atol=1e-6, rtol=1e-6
    )
    exact = ShapleyValues(smooth).attribute(ones, zeros)[0].float()
    scores = make_estimator("shapley", permutations=400).estimate(Toy(smooth, 5))
    assert ((scores.values - exact).abs() <= 4 * scores.errors + 1e-5).all() and scores.errors.max() < 0.1


def test_shapley_with_all_orders_is_exact(monkeypatch):
    """Two players have two orders, one the other's reverse; for three, the mean over all six by hand."""
    scores = make_estimator("shapley", permutations=2).estimate(Toy(lambda g: 4 * g[..., 0] * g[..., 1], 2))
    assert scores.values.tolist() == [2, 2] and scores.errors is None
    orders = [torch.tensor(order) for order in permutations(range(3)) if order < order[::-1]]
    drawn = iter(orders)
    monkeypatch.setattr(torch, "randperm", lambda *_, **__: next(drawn))
    assert make_estimator("shapley", permutations=6).estimate(Toy(pairs, 3)).values.tolist() == pytest.approx([2, 2, 1])


@given(st.lists(st.floats(-3, 3), min_size=6, max_size=6), st.integers(1, 3), st.integers(0, 5))
@settings(max_examples=25, deadline=None)
def test_axioms(numbers, half, seed):
    """Completeness of the path and efficiency of every sampled order, whatever the game."""
    numbers = torch.tensor(numbers).double()

    def game(gates):
        return (gates @ numbers).sin() + gates[..., 0] * gates[..., 5] * numbers[2]

    toy = Toy(game, 6)
    path = make_estimator("integrated_gradients", steps=24, level=0.25).estimate(toy)
    gain = toy.intact - toy.value(torch.full((6,), 0.25))
    assert 0.75 * path.values.sum().item() == pytest.approx(gain, abs=1e-3)
    assert path.facts["convergence_delta"] == pytest.approx(0.75 * path.values.sum().item() - gain, abs=1e-4)
    shared = make_estimator("shapley", permutations=2 * half, seed=seed).estimate(toy)
    assert shared.values.sum().item() == pytest.approx(toy.intact - toy.value(torch.zeros(6)), abs=1e-5)
    assert shared.facts["efficiency_gap"] < 1e-9


def test_a_coarse_path_says_so():
    facts = make_estimator("integrated_gradients", steps=1).estimate(Toy(additive, 5)).facts
    assert facts["convergence_delta"] == pytest.approx(0.75 * 2.5 - 2.5), "the midpoint of 3 g^2 is 3/4"


@given(st.integers(2, 40), st.lists(st.floats(0.02, 0.9), min_size=1, max_size=3), st.integers(1, 30))
@settings(max_examples=50, deadline=None)
def test_patterns_are_stratified(n, rates, number):
    patterns = torch.stack(list(stratified(n, rates, number, torch.Generator().manual_seed(0))))
    assert patterns.shape == (number, n) and set(patterns.flatten().tolist()) <= {0, 1}
    counts = (1 - patterns).sum(0)
    assert counts.max() - counts.min() <= 1, "every component is ablated equally often"
    for turn, row in enumerate(patterns):
        wanted = min(max(round(rates[turn % len(rates)] * n), 1), n - 1)
        assert (1 - row).sum() == wanted


def test_balanced_patterns_differ_in_size():
    patterns = balanced(5000, 0.1, 50, torch.Generator().manual_seed(0))
    assert patterns.dtype == torch.bool and ((~patterns).sum(0) == 5).all()
    assert 15 < (~patterns).sum(1).double().std() < 30, "binomial: the root of 5000 * 0.1 * 0.9 is 21"


@pytest.mark.parametrize("name", ["ablated_gradients", "shapley"])
def test_errors_cover_the_truth(name):
    """Over many seeds, the estimates spread about as much as they say, on a game with interactions."""
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(12, 12, generator=generator).double()

    def game(gates):
        return (gates @ matrix * gates).sum(-1) * (gates[..., 0] + gates[..., 1])

    sizes = {"ablated_gradients": {"patterns": 40, "rates": [0.25]}, "shapley": {"permutations": 20}}[name]
    runs = [make_estimator(name, seed=seed, **sizes).estimate(Toy(game, 12)) for seed in range(30)]
    spread = torch.stack([run.values for run in runs]).std(0).mean()
    said = torch.stack([run.errors for run in runs]).mean()
    # Stratified patterns are better than independent ones, of which the errors speak.
    assert 0.4 < spread / said < 1.6


def test_ablated_gradients_that_never_ablated():
    scores = make_estimator("ablated_gradients", patterns=1, rates=[0.2]).estimate(Toy(pairs, 5))
    assert scores.facts["never_ablated"] == 4 and scores.values.isfinite().all()


class Dealt(Toy):
    """J is the mean over noisy latents of slope * sum of gates; dealt, it is that of a share of the noisy latents."""

    def __init__(self, slopes: torch.Tensor):
        super().__init__(lambda gates: slopes.mean() * gates.sum(-1), 5)
        self.slopes, self.played = slopes, []
        self.objective.latents = slopes

    def deal(self, number, seed=0):
        order = torch.randperm(len(self.slopes), generator=torch.Generator().manual_seed(seed))
        self.played.append([sorted(order[i::number].tolist()) for i in range(min(number, len(order)))])
        return [Dealt(self.slopes[rows]) for rows in self.played[-1]]


def test_patterns_share_out_the_noisy_latents():
    slopes = torch.arange(12).double()
    game = Dealt(slopes)
    scores = make_estimator("ablated_gradients", patterns=8, passes=2, rates=[0.4], midpoint=False).estimate(game)
    assert scores.facts["patterns"] == 8 and scores.facts["passes"] == 2
    assert [sorted(sum(dealt, [])) for dealt in game.played] == [list(range(12))] * 2, (
        "every noisy latent once in each pass"
    )
    assert game.played[0] != game.played[1]
    torch.testing.assert_close(scores.values, torch.full((5,), 5.5))
    few = make_estimator("ablated_gradients", patterns=99, passes=1).estimate(Dealt(slopes))
    assert few.facts["patterns"] == 12, "no pattern without a noisy latent"


@pytest.mark.parametrize("name", ["projection", "contrast"])
def test_dealt_objectives_have_the_mean_of_the_whole(name, tiny_model, tiny_latents):
    context = {"retained": [tiny_latents[:6]]} if name == "contrast" else {}
    latents = tiny_latents[:6]
    objective = make_objective(name, tiny_model, latents, 4, None, context)
    shares = objective.deal(3, seed=1)
    assert [len(share.latents) for share in shares] == [2, 2, 2]
    gates = {site.module: torch.full((site.shape[1],), 0.5) for site in find_sites(tiny_model.denoiser)[:2]}
    assert sum(share.value(*placed(gates)) for share in shares) / 3 == pytest.approx(
        objective.value(*placed(gates)), rel=1e-5, abs=1e-7
    )
    assert len(objective.deal(99)) == 6
    if name == "contrast":
        unequal = make_objective(name, tiny_model, latents[:3], 4, None, {"retained": [tiny_latents[:8]]})
        assert sum(len(share.members[1].latents) for share in unequal.deal(5)) == 8, "no retained noisy latent is lost"


def test_regression_against_scikit_learn():
    from sklearn.linear_model import Ridge

    generator = torch.Generator().manual_seed(3)
    for rows, columns in ((40, 12), (30, 70)):
        x = torch.rand(rows, columns, generator=generator) < 0.3
        y = x.double() @ torch.randn(columns, generator=generator).double() + 5
        fit = ridge_regression(x, y, 0.7)
        theirs = Ridge(alpha=0.7).fit(x.numpy().astype(float), y.numpy())
        assert fit.slopes.numpy() == pytest.approx(theirs.coef_, abs=1e-8)
        assert fit.predict(x).numpy() == pytest.approx(theirs.predict(x.numpy().astype(float)), abs=1e-8)
        assert fit.r2 == pytest.approx(theirs.score(x.numpy().astype(float), y.numpy()))


def test_regression_errors_are_those_of_least_squares():
    """With hardly any penalty: sigma^2 (X'X)^-1, and the noise that was put in."""
    generator = torch.Generator().manual_seed(4)
    x = torch.rand(400, 6, generator=generator) < 0.5
    y = x.double() @ torch.ones(6).double() + 0.1 * torch.randn(400, generator=generator).double()
    fit = ridge_regression(x, y, 1e-9)
    design = torch.cat([torch.ones(400, 1), x.float()], 1).double()
    sigma2 = (y - fit.predict(x)).square().sum() / (400 - 7)
    by_hand = (sigma2 * torch.linalg.inv(design.T @ design)).diagonal().sqrt()[1:]
    torch.testing.assert_close(fit.errors, by_hand, rtol=1e-5, atol=1e-9)
    assert ridge_regression(x, y).ridge > 0 and (ridge_regression(x, y).slopes - 1).abs().max() < 0.05


def test_coar_knows_how_good_it_is():
    good = make_estimator("coar").estimate(Toy(lambda gates: linear(gates) + 0.2 * pairs(gates), 5))
    assert 0.9 < good.facts["held_out_r2"] < 1
    noise = torch.Generator().manual_seed(0)
    bad = make_estimator("coar", patterns=100).estimate(
        Toy(lambda gates: torch.randn(len(gates), generator=noise).double() if gates.ndim == 2 else gates.sum(), 5)
    )
    assert bad.facts["held_out_r2"] < 0.3 and bad.errors.min() > 0
    flat = make_estimator("coar", patterns=20).estimate(Toy(lambda gates: gates.sum(-1) * 0, 5))
    assert flat.values.abs().max() == 0 and flat.facts["held_out_r2"] is None


@pytest.mark.parametrize("name", ["leave_one_out", "coar", "shapley"])
def test_a_stopped_run_goes_on(name, tmp_path):
    toy = Toy(smooth, 5)
    whole = make_estimator(name).estimate(toy)

    class Stopped(Toy):
        def values(self, gates):
            if self.evaluations > 1:
                raise KeyboardInterrupt
            return super().values(gates)

    estimator = make_estimator(name)
    estimator.block, watch = 2, Watch(checkpoint=tmp_path / "deep" / "state.safetensors")
    stopped = Stopped(smooth, 5)
    with pytest.raises(KeyboardInterrupt):
        estimator.estimate(stopped, watch)
    again = Toy(smooth, 5)
    scores = estimator.estimate(again, watch)
    torch.testing.assert_close(scores.values, whole.values)
    assert again.evaluations <= toy.evaluations - 1, "what was finished is not done again"
    finished = Toy(smooth, 5)
    assert torch.equal(estimator.estimate(finished, watch).values, scores.values) and finished.evaluations <= 1
    with pytest.raises(UserError, match="belongs to another run"):
        estimator.estimate(Toy(linear, 5), watch)


def test_progress_counts_noisy_latents(tiny_model, tiny_latents):
    seen = []
    objective = make_objective("erase", tiny_model, tiny_latents[:4], 3)
    game = Game(objective, make_granularity("layer").on(find_sites(tiny_model.denoiser)))
    for name, passes in (("first_order", 1), ("ablated_gradients", 5), ("leave_one_out", game.n)):
        estimator = make_estimator(name, **({"patterns": 5} if name == "ablated_gradients" else {}))
        estimator.estimate(game, Watch(lambda *count: seen.append(count)))
        assert seen[-1][0] >= 4 * passes and seen[-1][0] <= seen[-1][1] and seen == sorted(seen)
        assert objective.progress is None
        seen.clear()


def test_baselines_by_hand():
    """x = (1, 3) under the concept, (1, 1) under the base prompt, W = [[2, -3]]: |w| (|x_c| - |x_b|) = (0, 6)."""

    class Model:
        device = torch.device("cpu")
        denoiser = torch.nn.Sequential(torch.nn.Linear(2, 1, bias=False))

        def predict(self, x, t, states):
            return self.denoiser(torch.stack([x[:, 0], x[:, 0] * states[:, 0, 0]], 1))

    class Batch(list):
        x, t = torch.ones(2, 1), torch.zeros(2)

        def batches(self, size):
            yield self

    Model.denoiser[0].weight.data = torch.tensor([[2.0, -3.0]])
    objective = type("Objective", (), {})()
    objective.model, objective.latents, objective.batch_size, objective.progress = Model(), Batch([0, 1]), 2, None
    objective.concept, objective.neutral = torch.full((1, 1, 1), 3.0), torch.ones(1, 1, 1)
    for cut, scores, sizes in (("weight", [0, 6], [2, 3]), ("neuron", [0, 6], [2, 3]), ("layer", [6], [5])):
        game = Game(objective, make_granularity(cut).on([Site("0", "0", FF, (1, 2))]))
        assert make_estimator("wanda").estimate(game).values.tolist() == pytest.approx(scores)
        assert make_estimator("magnitude").estimate(game).values.tolist() == sizes
    assert make_estimator("gradient_magnitude").estimate(Toy(linear, 5)).values.tolist() == SLOPES.abs().tolist()


def test_random_repeats_itself_by_its_seed():
    first, again, other = (make_estimator("random", seed=seed).estimate(Toy(linear, 5)).values for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)


SMALL = {"ablated_gradients": {"patterns": 3}, "coar": {"patterns": 10}, "shapley": {"permutations": 2}}
SMALL["integrated_gradients"] = {"steps": 3}
ONE_BY_ONE = ("leave_one_out", "activation_patching")


@pytest.mark.parametrize("name", ESTIMATORS)
def test_on_the_tiny_model(name, tiny_model, tiny_latents):
    """Every estimator gives finite scores of every component, where it says it can, and leaves the model as it was."""
    before, sites = tiny_model.fingerprint(), find_sites(tiny_model.denoiser)
    objective = make_objective("projection", tiny_model, tiny_latents[:2], 8)
    estimator = make_estimator(name, **SMALL.get(name, {}))
    for cut in (cut for cut in OWN if estimator.fits(GRANULARITIES.get(cut))):
        granularity, asked = make_granularity(cut), sites
        if cut == "neuron" and name in ONE_BY_ONE:  # those of all sites are 2,000 ablations
            granularity = make_granularity(cut, [CROSS])
            asked = granularity.sites(sites)[:1]
        game = Game(objective, granularity.on(asked))
        scores = estimator.estimate(game)
        assert scores.values.shape == (game.n,) and scores.values.isfinite().all() and scores.values.std() > 0
        assert scores.errors is None or scores.errors.shape == (game.n,)
    assert tiny_model.fingerprint() == before and leftovers(tiny_model.denoiser) == 0
    assert all(p.grad is None and not p.requires_grad for p in tiny_model.denoiser.parameters())


@pytest.mark.parametrize("name", [name for name in ESTIMATORS if ESTIMATORS.get(name).additive and name != "random"])
def test_additive_scores_add_up(name, tiny_model, tiny_latents):
    sites = find_sites(tiny_model.denoiser)
    objective = make_objective("projection", tiny_model, tiny_latents[:2], 8)
    for cut in (make_granularity("neuron", [CROSS, FF]), make_granularity("head"), make_granularity("layer")):
        weights = Game(objective, make_granularity("weight", cut.kinds).on(sites))
        estimator = make_estimator(name, **SMALL.get(name, {}))
        fine = weights.space.split(estimator.estimate(weights).values)
        coarse = estimator.estimate(Game(objective, cut.on(sites))).values
        torch.testing.assert_close(cut.on(sites).join(fine), coarse, atol=1e-4 * coarse.abs().max().item(), rtol=2e-3)


def test_leave_one_out_is_the_loop(tiny_model, tiny_latents):
    objective = make_objective("erase", tiny_model, tiny_latents[:2], 8)
    game = Game(objective, make_granularity("head").on(find_sites(tiny_model.denoiser)))
    scores = make_estimator("leave_one_out", block=5).estimate(game).values
    singly = [game.intact - game.value(1 - torch.eye(game.n)[i]) for i in range(game.n)]
    assert scores.tolist() == pytest.approx(singly, abs=1e-5 * abs(game.intact))


def test_errors():
    with pytest.raises(UserError, match="did you mean 'magnitude'"):
        make_estimator("magnitud")
    with pytest.raises(UserError, match="estimator shapley does not take these settings"):
        make_estimator("shapley", patterns=3)
    for name, wrong in (
        ("integrated_gradients", {"steps": 0}),
        ("integrated_gradients", {"level": 1}),
        ("ablated_gradients", {"patterns": 0}),
        ("ablated_gradients", {"patterns": 4, "passes": 5}),
        ("leave_one_out", {"block": 0}),
        ("coar", {"patterns": 3}),
        ("coar", {"ridge": 0}),
        ("shapley", {"permutations": 3}),
    ):
        with pytest.raises(UserError, match="use"):
            make_estimator(name, **wrong)
    with pytest.raises(UserError, match="rates .* out of range"):
        make_estimator("ablated_gradients", rates=[1.5]).estimate(Toy(linear, 5))
    with pytest.raises(UserError, match="coar is not for granularity weight: use granularity=neuron or"):
        make_estimator("coar").estimate(Toy(linear, 5, "weight"))
