"""Activation patching against a pencil, and against hooks of the test's own."""

import pytest
import torch

from cad_exp.attribution.estimators import make_estimator
from cad_exp.attribution.estimators.patching import BaseRun
from cad_exp.attribution.game import Game
from cad_exp.attribution.objectives.build import make_objective
from cad_exp.data.noisy_latents import NoisyLatents, sample_trajectory
from cad_exp.interventions.spaces import FF, Site, find_sites, make_granularity
from cad_exp.utils.errors import UserError
from tests.attribution.test_objectives import ToyModel, leftovers
from tests.interventions.test_ablation import inputs_under

PICKED = (0, 3, 9)  # sites whose heads are compared: the first self-attention, and later ones of both kinds


def toy(objective="erase", **settings):
    """x = (1, 4) and (3, 0); the prompt adds 1 to x0; y = 2 x0 - 3 x1: under it -8 and 8, under the base -10 and 6."""
    x, t = torch.tensor([[1.0, 4.0], [3.0, 0.0]]), torch.zeros(2, dtype=torch.long)
    latents = NoisyLatents(x, t, torch.tensor([[-10.0], [6.0]]), torch.tensor([[-8.0], [8.0]]), None, "c", "")
    objective = make_objective(objective, ToyModel(), latents, 1, **settings)
    return Game(objective, make_granularity("neuron").on([Site("0", "0", FF, (1, 2))]))


@pytest.mark.parametrize("first_order", [False, True])
def test_toy_by_hand(first_order):
    """Only x0 knows the prompt: swapping it is all that erase (2^2 = 4) and projection (1) have, either way.

    By the gradient: noising of erase has 2 y' dy = 2 * 2 * 2 = 8 where the effect is 4, for it is a square.
    """
    for objective, exact, slope in (("erase", 4, 8), ("projection", 1, 1)):
        for direction in ("noising", "denoising"):
            if (objective, direction, first_order) == ("erase", "denoising", True):
                continue
            estimator = make_estimator("activation_patching", direction=direction, first_order=first_order)
            scores = estimator.estimate(toy(objective))
            assert scores.values.tolist() == pytest.approx([slope if first_order else exact, 0]), (objective, direction)
            assert scores.facts["direction"] == direction and scores.facts["passes"] == (1 if first_order else 2)
            if direction == "denoising":
                assert scores.facts["base_run"] == 0 and scores.facts["total_effect"] == exact


def test_the_objectives_own_ablation_plays_no_part():
    for ablation in ("zero", "mean", "resample"):
        game = toy("erase", ablation=ablation)
        assert make_estimator("activation_patching").estimate(game).values.tolist() == [4, 0]
        assert game.objective.ablation.name == ablation and game.intact == 4


def test_errors():
    with pytest.raises(UserError, match="did you mean 'noising'"):
        make_estimator("activation_patching", direction="noisin")
    with pytest.raises(UserError, match="flat at the base prompt's run"):
        make_estimator("activation_patching", direction="denoising", first_order=True).estimate(toy())
    game = Game(toy().objective, make_granularity("weight").on([Site("0", "0", FF, (1, 2))]))
    with pytest.raises(UserError, match="not for granularity weight"):
        make_estimator("activation_patching").estimate(game)


def by_hand(model, latents, objective, run, other, site, columns):
    """J with the run of one prompt, `columns` of one site's input taken from the other's; its references stay.

    run, other: prompts.
    """
    source = inputs_under(model, latents, other, [site.module])[site.module]
    base, cond = (model.encode([each]).expand(len(latents)) for each in ("", latents.prompt))
    states = model.encode([run]).expand(len(latents))

    def put(_, args):
        x = args[0].clone()
        x[..., columns] = source[..., columns]
        return (x,)

    hook = model.denoiser.get_submodule(site.module).register_forward_pre_hook(put)
    with torch.no_grad():
        moved = model.predict(latents.x, latents.t, states)
        hook.remove()
        plain, full = (model.predict(latents.x, latents.t, each) for each in (base, cond))
    if objective == "erase":
        return (moved - plain).square().mean().item()
    direction = (full - plain).flatten(1)
    return (((moved - plain).flatten(1) * direction).sum(1) / direction.square().sum(1)).mean().item()


@pytest.mark.parametrize("direction", ["noising", "denoising"])
@pytest.mark.parametrize("objective", ["erase", "projection"])
def test_heads_against_hooks(objective, direction, tiny_model, tiny_latents):
    latents, cut = tiny_latents[:4], make_granularity("head")
    sites = cut.sites(find_sites(tiny_model.denoiser))
    game = Game(make_objective(objective, tiny_model, latents, 3), cut.on(sites))
    scores = make_estimator("activation_patching", direction=direction, block=7).estimate(game)
    run, other = (latents.prompt, "") if direction == "noising" else ("", latents.prompt)
    start = game.intact if direction == "noising" else 0.0
    sign = 1 if direction == "noising" else -1
    for number in PICKED:
        site = sites[number]
        offset, width = sum(each.heads for each in sites[:number]), site.shape[1] // site.heads
        for head in (0, site.heads - 1):
            columns = torch.arange(head * width, (head + 1) * width)
            there = by_hand(tiny_model, latents, objective, run, other, site, columns)
            found = scores.values[offset + head].item()
            assert found == pytest.approx(sign * (start - there), abs=2e-6 * max(abs(game.intact), 1)), (number, head)
    assert scores.values.abs().max() > 1e-4 * abs(game.intact), "there is something to compare"
    assert leftovers(tiny_model.denoiser) == 0


def test_all_swapped_is_the_other_run(tiny_model, tiny_latents):
    """With every site swapped, the concept's run is the base run, and the base run the concept's."""
    objective = make_objective("projection", tiny_model, tiny_latents[:4], 4)
    sites, cut = find_sites(tiny_model.denoiser), make_granularity("layer")
    for swap, start, end in ((lambda objective: objective.with_ablation("resample"), 1, 0), (BaseRun, 0, 1)):
        game = Game(swap(objective), cut.on(sites))
        assert game.intact == pytest.approx(start, abs=1e-4)
        assert game.value(torch.zeros(game.n)) == pytest.approx(end, abs=1e-4)


@pytest.mark.parametrize("direction", ["noising", "denoising"])
def test_first_order_is_the_slope(direction, tiny_model, tiny_latents):
    """Against a small step of one gate, at the run that is patched."""
    objective = make_objective("projection", tiny_model, tiny_latents[:2], 2)
    sites, cut = find_sites(tiny_model.denoiser), make_granularity("layer")
    scores = make_estimator("activation_patching", direction=direction, first_order=True).estimate(
        Game(objective, cut.on(sites))
    )
    game = Game(objective.with_ablation("resample") if direction == "noising" else BaseRun(objective), cut.on(sites))
    sign, scale = (1 if direction == "noising" else -1), scores.values.abs().max().item()
    for layer in scores.values.abs().topk(2).indices.tolist():
        step = torch.zeros(game.n).index_fill(0, torch.tensor(layer), 0.1)
        slope = (game.value(1 + step) - game.value(1 - step)) / 0.2
        assert sign * slope == pytest.approx(scores.values[layer].item(), rel=0.02, abs=1e-3 * scale)


def test_contrast_is_patched_in_all_its_parts(tiny_model, tiny_latents):
    """The concept's score minus the retained prompt's, each patched with the base prompt's activations."""
    kept = sample_trajectory(tiny_model, "a person", "", seeds=[5], steps=2)
    sites, cut = find_sites(tiny_model.denoiser), make_granularity("layer")
    both = make_objective("contrast", tiny_model, tiny_latents[:2], 4, context={"retained": [kept]}, weight=0.5)
    parts = [make_objective("projection", tiny_model, latents, 4) for latents in (tiny_latents[:2], kept)]
    found, own, other = (
        make_estimator("activation_patching").estimate(Game(objective, cut.on(sites))).values
        for objective in (both, *parts)
    )
    torch.testing.assert_close(found, own - 0.5 * other, atol=1e-5, rtol=1e-3)
    assert {part.ablation.name for part in both.members} == {"zero"}
    with pytest.raises(UserError, match="denoising is not for objective contrast"):
        make_estimator("activation_patching", direction="denoising").estimate(Game(both, cut.on(sites)))
