"""Prompt directions: hand-computed toys, the two controls, and what the embedded model's prompts are named."""

import pytest
import torch

from cad_exp.representations.hookpoints import choose_hookpoints
from cad_exp.representations.prompt_directions import Bank, by_prompt, walked_prompts
from cad_exp.representations.tokens import Walking, walked

# Two seeds each; the neutral prompt is at (1, 1, 1) and every prompt adds (0, 0, 3) besides its own.
ACTIVATIONS = [
    torch.tensor([[3.0, 1.0, 4.0], [5.0, 1.0, 4.0]]),  # adds (3, 0, 3)
    torch.tensor([[1.0, 4.0, 4.0], [1.0, 4.0, 4.0]]),  # (0, 3, 3)
    torch.tensor([[1.0, 1.0, 4.0], [1.0, 1.0, 4.0]]),  # (0, 0, 3)
]
NEUTRAL = torch.tensor([[0.0, 1.0, 1.0], [2.0, 1.0, 1.0]])
PROMPTS = ("a church", "a tench", "a thing")


def bank() -> Bank:
    return Bank.of(PROMPTS, ACTIVATIONS, NEUTRAL)


def test_a_direction_is_the_mean_over_seeds_less_the_neutral_prompt():
    assert bank().directions.tolist() == [[3, 0, 3], [0, 3, 3], [0, 0, 3]]
    assert bank().centred.tolist() == [[2, -1, 0], [-1, 2, 0], [-1, -1, 0]]


def test_a_vector_is_named_by_cosines_of_centred_directions():
    """(1, 0, 0) with (2, -1, 0), (-1, 2, 0), (-1, -1, 0): 2, -1 over root 5, and -1 over root 2."""
    found = bank().names(torch.tensor([7.0, 0.0, 0.0]))
    assert [name for name, _ in found] == ["a church", "a tench", "a thing"]
    assert [value for _, value in found] == pytest.approx([2 / 5**0.5, -1 / 5**0.5, -1 / 2**0.5])
    assert len(bank().names(torch.tensor([7.0, 0.0, 0.0]), top=1)) == 1
    assert bank().cosines(torch.zeros(1, 3)).tolist() == [[0, 0, 0]]


def test_the_neutral_prompt_changes_no_centred_direction_and_no_name():
    other, none = Bank.of(PROMPTS, ACTIVATIONS, 9 * NEUTRAL), Bank.of(PROMPTS, ACTIVATIONS)
    activations = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    for each in (other, none):
        assert torch.allclose(each.centred, bank().centred, atol=1e-6)
        assert torch.allclose(each.relative(activations), bank().relative(activations), atol=1e-5)


def test_other_seeds_of_a_prompt_name_it():
    seeds = torch.tensor([[4.1, 0.9, 4.2], [1.0, 3.0, 3.0], [1.2, 1.0, 4.0], [4.0, 1.0, 4.0]])
    assert bank().ranks(seeds, torch.tensor([0, 1, 2, 1])).tolist() == [0, 0, 0, 2]


def test_random_vectors_reach_what_geometry_says():
    """Two prompts give one direction and its opposite: in 3 dimensions |cosine| is uniform, so 95 % lie below .95."""
    two = Bank.of(PROMPTS[:2], ACTIVATIONS[:2])
    assert two.random_level(number=40_000) == pytest.approx(0.95, abs=0.005)
    assert two.random_level(quantile=0.5, number=40_000) == pytest.approx(0.5, abs=0.01)
    assert two.random_level(seed=1) == two.random_level(seed=1) != two.random_level(seed=2)
    along = torch.zeros(3, 3)
    along[2, 2] = 1.0  # vectors along the third axis, where the directions have nothing
    assert two.random_level(along) == pytest.approx(0, abs=1e-6)
    flat = torch.diag(torch.tensor([1.0, 1.0, 0.0]))
    assert bank().random_level(flat) > bank().random_level()  # in the plane of the prompts all are nearer


def test_a_bank_has_two_prompts_and_activations_of_each():
    with pytest.raises(ValueError, match="1 prompts and 1 activations"):
        Bank.of(PROMPTS[:1], ACTIVATIONS[:1])
    with pytest.raises(ValueError, match="3 prompts and 2 activations"):
        Bank.of(PROMPTS, ACTIVATIONS[:2])


def test_images_are_grouped_by_their_captions():
    activations = torch.arange(10.0).reshape(5, 2)
    prompts, found = by_prompt(["b", "a", "b", "c", "a"], activations)
    assert prompts == ["b", "a"] and [each.tolist() for each in found] == [[[0, 1], [4, 5]], [[2, 3], [8, 9]]]
    assert by_prompt(["b", "a", "b"], activations[:3], least=1)[0] == ["b", "a"]


def test_walked_prompts_are_means_of_trajectories(tiny_model):
    places = choose_hookpoints(tiny_model, ["mid_block.attentions.0", "conv_in"])
    walking = Walking(steps=2, guidance=3.0, seed=5)
    found = walked_prompts(tiny_model, ["church", "tench"], [0, 1], places, walking, batch_size=3)
    whole = walked(tiny_model, ["tench"], [1], places, walking)
    for place in places:
        assert found[place.name].shape[:2] == (2, 2)
        assert torch.allclose(found[place.name][1, 1], whole.values[place.name][0].mean(0), atol=1e-5)


def test_the_embedded_models_prompts_are_told_apart_by_other_seeds():
    """Of four prompts on three seeds, four other seeds each name their own; random vectors seldom come as near."""
    from cad_exp.models.pipeline import DiffusionModel

    model = DiffusionModel.load("mini", device="cpu")
    places = choose_hookpoints(model, ["up_blocks.0.attentions.1"])
    prompts = [f"a photo of {what}" for what in ("a church", "a tench", "a golf ball", "a person")]
    walking = Walking(steps=4, guidance=4.0)
    activations = walked_prompts(model, prompts, range(7), places, walking)[places[0].name]
    made = Bank.of(prompts, list(activations[:, :3]))
    own = torch.arange(4).repeat_interleave(4)
    others = activations[:, 3:].flatten(0, 1)
    assert (made.ranks(others, own) == 0).all()
    nearest = made.cosines(made.relative(others)).max(1).values
    assert nearest.min() > made.random_level()
