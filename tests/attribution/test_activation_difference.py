"""SAeUron's score: by hand, by hooks of our own on the tiny model, and where it is not for a granularity."""

import pytest
import torch

from cad_exp.attribution.estimators import make_estimator
from cad_exp.attribution.game import Game
from cad_exp.attribution.objectives.build import make_objective
from cad_exp.interventions.encoder import Encoder
from cad_exp.interventions.gating import OUTPUT, Tap
from cad_exp.interventions.spaces import find_sites, make_granularity
from cad_exp.interventions.spaces.directions import Directions, Place
from cad_exp.utils.errors import UserError
from tests.attribution.test_objectives import leftovers

PLACES = ("mid_block.attentions.0", "up_blocks.0.attentions.0")  # of the tiny UNet: 64 features each


class Model:
    """h = (x, x times the prompt's number) at one position; at time 1 it is doubled."""

    device = torch.device("cpu")
    denoiser = torch.nn.Sequential(torch.nn.Identity())

    def predict(self, x, t, condition):
        h = torch.stack([x[:, 0], x[:, 0] * condition], -1) * (1 + t[:, None])
        return self.denoiser(h[:, None])

    def encode(self, prompts):
        self.asked = prompts
        return torch.tensor([float(prompt.split()[-1]) for prompt in prompts])


class Batch(list):
    """Three noisy latents: one at time 0, two at time 1."""

    x, t = torch.tensor([[1.0], [1.0], [3.0]]), torch.tensor([0, 1, 1])
    prompt, base_prompt = "church", ""

    def batches(self, size):
        yield self


def toy(vectors, encoder=None):
    objective = type("Objective", (), {})()
    objective.model, objective.latents, objective.batch_size, objective.progress = Model(), Batch([0, 1, 2]), 3, None
    objective.concept, objective.neutral = torch.tensor([3.0]), torch.tensor([1.0])
    return Game(objective, Directions([Place(Tap("0", OUTPUT), vectors, encoder)]))


def test_by_hand():
    """At time 0 h = (1, 3) under the concept, (1, 1) under the base prompt: shares (1/4, 3/4) and (1/2, 1/2).

    At time 1 both are larger, by the same factor: the shares stay. So the scores are (-1/4, 1/4).
    """
    game = toy(torch.eye(2))
    scores = make_estimator("activation_difference").estimate(game)
    assert scores.values.tolist() == pytest.approx([-0.25, 0.25]) and scores.facts == {"passes": 2, "others": [""]}


def test_other_prompts_are_pooled_without_the_concepts_own():
    """Prompts of 1 and 5 give (1, 1) and (1, 5), together (1, 3): the concept's own shares, so nothing is left."""
    estimator = make_estimator("activation_difference", others=["a 1", "a photo of a Church 9", "b 5"])
    game = toy(torch.eye(2))
    scores = estimator.estimate(game)
    assert scores.values.tolist() == pytest.approx([0, 0], abs=1e-7)
    assert scores.facts == {"passes": 3, "others": ["a 1", "b 5"]} and game.objective.model.asked == ["a 1", "b 5"]


def test_timesteps_count_alike_and_what_never_acts_scores_nothing():
    """z = ReLU(h_2 - 2, h_1, h_1 - 99): at time 0 (1, 1, 0) under the concept and (0, 1, 0) under the base prompt.

    At time 1 h is (2, 6) and (6, 18) under the concept: z = (4, 2, 0), (16, 6, 0), in the mean (10, 4, 0). Under the
    base prompt (2, 2) and (6, 6): (0, 2, 0), (4, 6, 0), in the mean (2, 4, 0).
    """
    weight, bias = torch.tensor([[0.0, 1], [1, 0], [1, 0]]), torch.tensor([-2.0, 0, -99])
    encoder = Encoder(weight, bias, torch.zeros(2))
    scores = make_estimator("activation_difference").estimate(toy(torch.ones(3, 2), encoder))
    by_hand = ((1 / 2 - 0) + (10 / 14 - 2 / 6)) / 2
    assert scores.values.tolist() == pytest.approx([by_hand, -by_hand, 0])


def test_on_the_tiny_model(tiny_model, tiny_latents):
    """Two places, read by hooks of our own, one noisy latent after the other."""
    drawn = torch.randn(2, 5, 64, generator=torch.Generator().manual_seed(0))
    vectors = dict(zip(PLACES, drawn, strict=True))
    space = Directions([Place.of(name, own, axis=1) for name, own in vectors.items()])
    game = Game(make_objective("projection", tiny_model, tiny_latents, 4), space)
    found = make_estimator("activation_difference").estimate(game).values
    expected = []
    for name, own in vectors.items():
        shares = {}
        for prompt in ("church", ""):
            by_time = {}
            for x, t in zip(tiny_latents.x.split(1), tiny_latents.t.split(1), strict=True):
                seen = []
                hook = tiny_model.denoiser.get_submodule(name).register_forward_hook(lambda *_, s=seen: s.append(_[2]))
                with torch.no_grad():
                    tiny_model.predict(x, t, tiny_model.encode([prompt]))
                hook.remove()
                h = seen[0][0] if isinstance(seen[0], tuple) else seen[0]
                by_time.setdefault(int(t), []).append((h[0].flatten(1).T @ own.T).abs().mean(0))
            means = torch.stack([torch.stack(each).mean(0) for each in by_time.values()])
            shares[prompt] = means / means.sum(1, keepdim=True)
        expected.append((shares["church"] - shares[""]).mean(0))
    assert len(by_time) == 5
    torch.testing.assert_close(found, torch.cat(expected), atol=1e-5, rtol=1e-3)
    assert leftovers(tiny_model.denoiser) == 0


@pytest.mark.parametrize("name", ["weight", "neuron"])
def test_it_is_not_for_parts_of_weights(name, tiny_model, tiny_latents):
    space = make_granularity(name).on(find_sites(tiny_model.denoiser))
    game = Game(make_objective("projection", tiny_model, tiny_latents[:2], 4), space)
    with pytest.raises(UserError, match=f"not for granularity {name}: use granularity=latent or granularity=principal"):
        make_estimator("activation_difference").estimate(game)
