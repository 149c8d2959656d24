"""The game: gates of components against gates of the objective, and nothing left behind in the model."""

import pytest
import torch

from cad_exp.attribution.game import Game, input_norms
from cad_exp.attribution.objectives.build import make_objective
from cad_exp.interventions.spaces import CROSS, FF, OWN, find_sites, make_granularity
from cad_exp.utils.errors import UserError
from tests.attribution.test_objectives import leftovers


@pytest.fixture(scope="module")
def game(tiny_model, tiny_latents):
    """A game by granularity, on three noisy latents."""
    objective, sites = make_objective("erase", tiny_model, tiny_latents[:3], 4), find_sites(tiny_model.denoiser)
    return lambda name, kinds=None: Game(objective, make_granularity(name, kinds).on(sites))


@pytest.mark.parametrize("name", OWN)
def test_split_and_join(name, game):
    """A component's gate reaches its own columns or weights only, and `join` adds up what it has there."""
    played = game(name)
    gates = torch.arange(played.n) + 1.0
    space = played.space
    split, chosen = space.split(gates), space.sites
    assert list(split) == [site.module for site in chosen]
    one = space.locate(torch.tensor([played.n - 1]))
    for site in chosen:
        hit = torch.zeros(split[site.module].numel(), dtype=torch.bool)
        hit[one.get(site.module, torch.zeros(0, dtype=torch.long))] = True
        assert torch.equal(split[site.module].flatten() == played.n, hit)
    size = [s.size if name == "weight" else s.shape[1] for s in chosen]
    width = torch.cat([torch.full((n,), whole // n) for n, whole in zip(space.parts, size, strict=True)])
    assert torch.equal(space.join(split), gates * width)
    if space.per_row:
        assert all(torch.equal(split[m], g[1]) for m, g in space.split(torch.stack([gates * 0, gates])).items())


@pytest.mark.parametrize("name", ["neuron", "head", "layer"])
def test_values_equal_one_by_one(name, game):
    played, generator = game(name), torch.Generator().manual_seed(0)
    gates = (torch.rand(5, played.n, generator=generator) > 0.2).float()
    gates[4] = 1
    values = played.values(gates)
    assert values.dtype == torch.float64
    assert values.tolist() == pytest.approx([played.value(row) for row in gates], rel=1e-5)
    assert values[4].item() == pytest.approx(played.intact, rel=1e-5) and played.value() == played.intact


def test_weights_go_one_by_one(game):
    played = game("weight", [CROSS])
    gates = torch.ones(2, played.n)
    gates[1, ::3] = 0
    assert played.values(gates).tolist() == pytest.approx([played.intact, played.value(gates[1])], rel=1e-6)


@pytest.mark.parametrize("name", OWN)
def test_gradient_is_a_finite_difference(name, game):
    played = game(name)
    generator = torch.Generator().manual_seed(1)
    gates, way = torch.rand(played.n, generator=generator) * 0.4 + 0.6, torch.randn(played.n, generator=generator)
    way /= way.norm()
    value, gradient = played.value_and_gradient(gates)
    assert value == pytest.approx(played.value(gates), rel=1e-5) and gradient.shape == (played.n,)
    step = 0.02
    slope = (played.value(gates + step * way) - played.value(gates - step * way)) / (2 * step)
    assert (gradient @ way).item() == pytest.approx(slope, rel=0.05, abs=1e-4 * value)


def test_intact_is_evaluated_once(tiny_model, tiny_latents):
    seen = []
    objective = make_objective("erase", tiny_model, tiny_latents[:2], 2, progress=lambda *count: seen.append(count))
    played = Game(objective, make_granularity("layer").on(find_sites(tiny_model.denoiser)))
    value, _ = played.value_and_gradient()
    assert played.intact == played.value() == value and len(seen) == 1


def test_weights_are_sizes(game, tiny_model):
    layers = game("layer")
    expected = [tiny_model.denoiser.get_submodule(s.module).weight.abs().sum().item() for s in layers.space.sites]
    assert layers.space.magnitudes(tiny_model).tolist() == pytest.approx(expected, rel=1e-5)
    assert game("head").space.magnitudes(tiny_model).sum().item() < sum(expected)


def test_input_norms_by_hand(game, tiny_model):
    """Against the whole inputs, kept by a hook of the test's own, in one batch instead of several."""
    played, kept = game("neuron", [CROSS, FF]), {}
    objective, site = played.objective, played.space.sites[2]
    norms = input_norms(played, objective.concept)
    module = tiny_model.denoiser.get_submodule(site.module)
    hook = module.register_forward_pre_hook(lambda _, args: kept.update(x=args[0].detach()))
    latents = objective.latents
    tiny_model.predict(latents.x, latents.t, objective.concept.expand(len(latents)))
    hook.remove()
    by_hand = (kept["x"].square().flatten(0, -2).sum(0) / len(latents)).sqrt()
    torch.testing.assert_close(norms[site.module], by_hand, rtol=1e-4, atol=1e-6)
    assert set(norms) == {site.module for site in played.space.sites}


def test_nothing_is_left_behind(game, tiny_model):
    before = tiny_model.fingerprint()
    played = game("head")
    gates = torch.ones(2, played.n).index_fill(1, torch.tensor([1]), 0)
    played.value(gates[0])
    played.values(gates)
    played.value_and_gradient(gates[0])
    input_norms(played, played.objective.neutral)
    assert tiny_model.fingerprint() == before and leftovers(tiny_model.denoiser) == 0
    assert all(p.grad is None and not p.requires_grad for p in tiny_model.denoiser.parameters())


def test_a_game_without_players(game):
    with pytest.raises(UserError, match="no head among"):
        played = game("head")
        feed_forward = [site for site in played.space.all_sites if site.kind == FF]
        Game(played.objective, make_granularity("head").on(feed_forward))
