"""Word maps and the pyramid: by hand from attention and activations, in any batch; and the pixels at each position."""

import numpy as np
import pytest
import torch

from cad_exp.representations.activations import Noising, extract, noise_of
from cad_exp.representations.cross_attention import attend
from cad_exp.representations.hookpoints import choose_hookpoints
from cad_exp.representations.pyramid import patches, pyramid
from cad_exp.representations.word_maps import word_maps
from cad_exp.utils.errors import UserError

NUMBERS = [4, 9, 2]


@pytest.fixture(scope="module")
def latents(tiny_model) -> torch.Tensor:
    return tiny_model.noise_like([0, 1, 2]).cpu()


def test_a_map_is_the_mean_over_heads_and_the_words_tokens(tiny_model, latents):
    prompts, words = ["ab cd", "ab cd", "x ef"], ["cd", "ab", "ef"]
    found = word_maps(tiny_model, latents, NUMBERS, prompts, words, [5, 700], seed=3)
    noise = noise_of(latents.shape[1:], 3, NUMBERS[0], 700, 0)[None]
    at = torch.tensor([700])
    x = tiny_model.add_noise(latents[:1], noise, at)
    _, seen = attend(tiny_model, x, at, tiny_model.encode(["ab cd"]), lambda each: each.probabilities)
    finest = max(seen, key=lambda each: each.shape[2])  # letters are tokens: start, a, b, c, d
    wanted = finest[0].mean(0)[:, [3, 4]].mean(-1)
    assert found.shape == (3, 2, len(seen), 8, 8)
    assert torch.allclose(found[0, 1, 0].flatten(), wanted, atol=1e-6)
    alone = word_maps(tiny_model, latents, NUMBERS, prompts, words, [5, 700], seed=3, batch_size=1)
    assert torch.allclose(found, alone, atol=1e-5)


def test_a_word_that_is_not_in_the_prompt_is_answered(tiny_model, latents):
    with pytest.raises(UserError, match="no word 'gh'"):
        word_maps(tiny_model, latents, NUMBERS, ["ab"] * 3, ["gh"] * 3, [5], seed=0)


def test_the_pyramid_puts_activations_side_by_side(tiny_model, latents):
    places = choose_hookpoints(tiny_model, ["noisy_latent", "mid_block.attentions.0", "up_blocks.1.attentions.0"])
    found = pyramid(tiny_model, latents, NUMBERS, places, 5, seed=3, side=8, batch_size=2)
    seen = extract(tiny_model, latents, NUMBERS, places, Noising((5,), seed=3), pooling="map")
    fine = [seen[each.name][:, 0, 0].numpy() for each in places if seen[each.name].shape[3] == 64]
    channels = {each.name: seen[each.name].shape[-1] for each in places}
    assert found.shape == (3, 64, sum(channels.values()))
    assert found[..., : channels["noisy_latent"]] == pytest.approx(fine[0], abs=1e-5)
    assert found[..., -channels["up_blocks.1.attentions.0"] :] == pytest.approx(fine[-1], abs=1e-4)


def test_patches_are_the_pixels_of_each_position():
    image = np.arange(16 * 16 * 3, dtype=np.uint8).reshape(1, 16, 16, 3)
    found = patches(image, 2)
    assert found.shape == (1, 4, 8 * 8 * 3)
    assert found[0, 1].reshape(3, 8, 8) == pytest.approx(np.moveaxis(image[0, :8, 8:], -1, 0) / 255, abs=1e-6)
