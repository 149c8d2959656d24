"""Guidance by prototypes: the gradient beside finite differences, the length of the push, and no push at all."""

import numpy as np
import pytest
import torch

from cad_exp.models.pipeline import DiffusionModel
from cad_exp.representations.activations import observe
from cad_exp.representations.guidance import along, lengths, sample, toward, unit
from cad_exp.representations.hookpoints import choose_hookpoints
from cad_exp.representations.prototypes import Prototypes, Standard, normalised

PLACE, T = "mid_block.attentions.0", 500


@pytest.fixture(scope="module")
def prototypes(tiny_model: DiffusionModel) -> Prototypes:
    place = choose_hookpoints(tiny_model, [PLACE])
    x, condition = tiny_model.noise_like([5]), tiny_model.encode([""])
    with torch.no_grad():
        size = observe(tiny_model, x, torch.tensor([T]), condition, place)[PLACE].shape[-1]
    rng = np.random.default_rng(0)
    return Prototypes(Standard(rng.normal(size=size), np.full(size, 2.0)), normalised(rng.normal(size=(3, size))))


def test_the_push_is_the_gradient_of_the_log_probability(tiny_model: DiffusionModel, prototypes: Prototypes):
    place, condition = choose_hookpoints(tiny_model, [PLACE]), tiny_model.encode([""])
    x, t = tiny_model.noise_like([1, 2]), torch.tensor([T, T])
    found = toward(tiny_model, place[0], {T: prototypes}, torch.tensor([2, 0]), 0.5)(x, t, condition)

    def log_probability(x: torch.Tensor) -> np.ndarray:
        with torch.no_grad():
            features = observe(tiny_model, x, t, condition, place)[PLACE].mean(1).double().numpy()
        logits = prototypes.standard.unit(features) @ prototypes.directions.T / 0.5
        return np.array([logits[0, 2], logits[1, 0]]) - np.log(np.exp(logits).sum(1))

    way = unit(found)
    step = 0.05
    by_differences = (log_probability(x + step * way) - log_probability(x - step * way)) / (2 * step)
    assert by_differences == pytest.approx(lengths(found).flatten().numpy(), rel=0.03)


def test_every_push_is_equally_long(tiny_model: DiffusionModel):
    seeds, drawn = [3, 4], tiny_model.noise_like([8, 9])
    plain = sample(tiny_model, seeds, 1)
    for scale in (0.5, 1.0):
        pushed = sample(tiny_model, seeds, 1, along(drawn), scale)
        other = sample(tiny_model, seeds, 1, along(100 * drawn), scale)
        assert torch.allclose(pushed, other, atol=1e-5)
        moved = lengths(pushed - plain).flatten()
        assert torch.allclose(
            moved / scale, lengths(sample(tiny_model, seeds, 1, along(drawn), 1.0) - plain).flatten(), rtol=1e-3
        )


def test_without_a_push_it_is_the_model_s_own_sampling(tiny_model: DiffusionModel):
    last = list(tiny_model.trajectory("", "", [3, 4], steps=3, guidance=0.0))[-1]
    sampler = tiny_model.sampler(3)
    expected = sampler.step(last.base, sampler.timesteps[-1], last.x).prev_sample
    assert torch.allclose(sample(tiny_model, [3, 4], 3), expected, atol=1e-5)


def test_the_nearest_timestep_serves(tiny_model: DiffusionModel, prototypes: Prototypes):
    place, condition = choose_hookpoints(tiny_model, [PLACE])[0], tiny_model.encode([""])
    other = Prototypes(prototypes.standard, -prototypes.directions)
    x, t = tiny_model.noise_like([1]), torch.tensor([T])
    wanted = torch.tensor([1])
    near = toward(tiny_model, place, {T - 50: prototypes, T + 200: other}, wanted, 0.5)(x, t, condition)
    alone = toward(tiny_model, place, {0: prototypes}, wanted, 0.5)(x, t, condition)
    assert torch.equal(near, alone)
