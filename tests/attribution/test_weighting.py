"""What counts of a prediction: weights of timesteps by hand and by the sampler, low frequencies, and J with both."""

from dataclasses import replace

import pytest
import torch

from cad_exp.attribution.attribute import spaces_of
from cad_exp.attribution.game import Game
from cad_exp.attribution.interactions.second_order import second_order
from cad_exp.attribution.interactions.sketch import Sketcher, concept
from cad_exp.attribution.objectives.build import make_objective
from cad_exp.attribution.objectives.weighting import MOST, WEIGHTINGS, Weighting, low_frequencies, reach
from cad_exp.config.schema import attribution as schema
from cad_exp.data.noisy_latents import sample_noised
from cad_exp.interventions.spaces import make_granularity
from cad_exp.utils.errors import UserError

COUNTED = [("snr", 1.0), ("x0", 0.5), ("image", 0.0)]


@pytest.fixture(scope="module")
def schedule(tiny_pipe):
    """Return the signal's share abar (1000,) of the tiny pipeline's noise schedule, as diffusers has it."""
    return tiny_pipe.scheduler.alphas_cumprod


@pytest.fixture(scope="module")
def heads(tiny_model):
    return spaces_of(tiny_model, [make_granularity("head")])[0]


def test_weights_by_the_noise_schedule(tiny_model, tiny_latents, schedule):
    t = tiny_latents.t[:5]
    ratio = schedule[t] / (1 - schedule[t])
    for name, expected in (("uniform", torch.ones(5)), ("snr", ratio.clamp_max(MOST)), ("x0", 1 / ratio)):
        found = Weighting(name, tiny_model, tiny_latents)(tiny_latents.t)
        torch.testing.assert_close(found[:5], expected / expected.mean(), rtol=1e-4, atol=1e-6)
        assert found.mean().item() == pytest.approx(1, rel=1e-5)
    torch.testing.assert_close(reach(tiny_model, t), ratio.rsqrt(), rtol=1e-4, atol=1e-6)


def test_the_weight_of_a_step_is_what_it_moves_the_image(tiny_model, tiny_latents, schedule):
    """By hand: x / sqrt(abar) moves by eps times the change of sqrt(1 - abar) / sqrt(abar), and nothing moves it back.

    The sampler ends at the schedule's first timestep, as Stable Diffusion's does (set_alpha_to_one=False).
    """
    t = tiny_latents.t[:5]
    noise = ((1 - schedule[t]) / schedule[t]).sqrt()
    end = ((1 - schedule[0]) / schedule[0]).sqrt()[None]
    expected = (noise - torch.cat([noise[1:], end])).square()
    found = Weighting("image", tiny_model, tiny_latents)(t)
    torch.testing.assert_close(found, expected / expected.mean(), rtol=1e-3, atol=1e-5)
    assert found[0] > found[-1]


def test_parts_of_the_noisy_latents_keep_their_weights(tiny_model, tiny_latents):
    for name in WEIGHTINGS:
        objective = make_objective("erase", tiny_model, tiny_latents, 4, weighting=name)
        parts = [part.value() for part in objective.deal(5)]
        assert sum(parts) / 5 == pytest.approx(objective.value(), rel=1e-4)
        few = tiny_latents[torch.tensor([0, 3])]
        torch.testing.assert_close(Weighting(name, tiny_model, few)(few.t), objective.weighting(few.t))


@pytest.mark.parametrize("shape", [(4, 4), (5, 8)])
def test_low_frequencies_are_an_orthogonal_projection(shape):
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 3, *shape, generator=generator)
    assert low_frequencies(x, 1.0) is x
    mean = x.mean((-1, -2), keepdim=True).expand_as(x)
    torch.testing.assert_close(low_frequencies(x, 0.0), mean, rtol=1e-5, atol=1e-6)
    some = low_frequencies(x, 0.5)
    torch.testing.assert_close(low_frequencies(some, 0.5), some, rtol=1e-5, atol=1e-6)
    assert (some * y).sum().item() == pytest.approx((x * low_frequencies(y, 0.5)).sum().item(), rel=1e-4)


def test_slow_waves_stay_and_fast_ones_go():
    place = torch.arange(8.0)
    waves = {number: torch.cos(2 * torch.pi * number * place / 8).expand(8, 8) for number in (1, 2, 3, 4)}
    kept = {number: low_frequencies(wave, 0.5).norm().item() for number, wave in waves.items()}
    # a half of the frequencies up to 4 of 8 positions: 1 and 2
    assert kept[1] == pytest.approx(waves[1].norm().item(), rel=1e-5)
    assert kept[2] == pytest.approx(waves[2].norm().item(), rel=1e-5)
    assert kept[3] == pytest.approx(0, abs=1e-5) and kept[4] == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("weighting, frequencies", COUNTED)
def test_j_by_its_formula(weighting, frequencies, tiny_model, tiny_latents):
    weights = Weighting(weighting, tiny_model, tiny_latents)(tiny_latents.t)
    seen = low_frequencies(tiny_latents.cond - tiny_latents.base, frequencies)
    expected = (seen.square().flatten(1).mean(1) * weights).mean().item()
    how = {"weighting": weighting, "frequencies": frequencies}
    for name, value in (("erase", expected), ("guidance_norm", expected), ("projection", 1)):
        assert make_objective(name, tiny_model, tiny_latents, 4, **how).value() == pytest.approx(value, rel=1e-3)


@pytest.mark.parametrize("name", ["erase", "projection", "guidance_norm"])
@pytest.mark.parametrize("weighting, frequencies", COUNTED)
def test_ablations_and_slopes_of_a_weighted_j(name, weighting, frequencies, tiny_model, tiny_latents, heads):
    objective = make_objective(name, tiny_model, tiny_latents, 4, weighting=weighting, frequencies=frequencies)
    gates = torch.ones(3, heads.n)
    gates[0, 0] = gates[1, 1] = gates[2, -1] = 0
    values = objective.values(heads, gates)
    expected = [objective.value(heads, row) for row in gates]
    assert values.tolist() == pytest.approx(expected, rel=1e-4, abs=1e-7)
    direction = torch.randn(heads.n, generator=torch.Generator().manual_seed(0))
    _, slopes = objective.value_and_gradient(heads, torch.ones(heads.n))
    up, down = (objective.value(heads, torch.ones(heads.n) + step * direction) for step in (2e-2, -2e-2))
    slope = (heads.join(slopes) @ direction).item()
    assert slope == pytest.approx((up - down) / 4e-2, rel=3e-2, abs=1e-4 * abs(objective.value()))


@pytest.mark.parametrize("weighting, frequencies", COUNTED)
def test_a_sketch_is_of_what_counts(weighting, frequencies, tiny_model, tiny_latents, heads):
    objective = make_objective("erase", tiny_model, tiny_latents, 4, weighting=weighting, frequencies=frequencies)
    left = concept(Sketcher(tiny_model, heads, 2, batch_size=4, counted=objective.counted), tiny_latents)
    value, slopes = objective.value_and_gradient(heads, torch.ones(heads.n))
    assert left.constant == pytest.approx(value, rel=1e-3)
    slopes = heads.join(slopes)
    torch.testing.assert_close(left.linear.float(), slopes, rtol=1e-2, atol=1e-3 * slopes.abs().max().item())
    assert second_order(Game(objective, heads), few=10).sketch is not None


def test_noised_images_have_weights_of_the_whole_schedule(tiny_model, schedule):
    noised = sample_noised(tiny_model, "church", n=8, steps=2)
    weighting = Weighting("x0", tiny_model, noised)
    ratio = (1 - schedule) / schedule
    torch.testing.assert_close(weighting(noised.t), ratio[noised.t] / ratio.mean(), rtol=1e-2, atol=1e-4)
    with pytest.raises(UserError, match="needs steps of trajectories"):
        make_objective("amplify", tiny_model, noised, weighting="image")


def test_the_config_names_every_weighting():
    assert tuple(WEIGHTINGS) == schema.WEIGHTINGS


def test_a_wrong_name_is_told(tiny_model, tiny_latents):
    with pytest.raises(UserError, match="did you mean 'image'"):
        make_objective("erase", tiny_model, tiny_latents, weighting="imag")
    walked = replace(tiny_latents, meta={})
    with pytest.raises(UserError, match="trajectories"):
        make_objective("erase", tiny_model, walked, weighting="image")
