"""Hookpoints and activations: in which order, what is read, what is not computed, and that nothing else matters."""

import pytest
import torch

from cad_exp.models.pipeline import DiffusionModel
from cad_exp.representations.activations import Noising, extract, noise_of, observe, pool
from cad_exp.representations.hookpoints import KINDS, NOISY_LATENT, choose_hookpoints, find_hookpoints
from cad_exp.representations.untrained import untrained
from cad_exp.utils.errors import UserError
from tests.tiny import BUILDERS, build

NOISING = Noising((1, 500), draws=2, seed=3)


@pytest.fixture(scope="module")
def latents(tiny_model) -> torch.Tensor:
    return tiny_model.noise_like([0, 1, 2]).cpu()


@pytest.mark.parametrize("family", sorted(BUILDERS))
def test_every_family_has_hookpoints_that_a_forward_pass_reaches(family: str, tmp_path_factory, once):
    """All kinds of place but whole stages, which only UNets have; each gives one row per latent."""
    model = DiffusionModel.load(once(family, lambda folder: build(family, folder)), device="cpu", steps=2)
    found = [each for each in find_hookpoints(model) if each.kind != "text"]
    assert {"noisy_latent", "embedding", "block", "attention", "feed-forward"} <= {each.kind for each in found}
    x, t = model.noise_like([0, 1]), torch.tensor([5, 5])
    seen = observe(model, x, t, model.encode(["church"]), found)
    assert list(seen) and set(seen) == {each.name for each in found}
    assert all(each.ndim == 3 and len(each) == 2 and each.dtype == torch.float32 for each in seen.values())
    assert all(torch.isfinite(each).all() for each in seen.values())


def test_places_come_in_the_order_of_the_forward_pass(tiny_model):
    called: list[str] = []
    found = [each for each in find_hookpoints(tiny_model) if each.kind not in ("text", NOISY_LATENT)]
    hooks = [
        tiny_model.denoiser.get_submodule(each.name).register_forward_hook(
            lambda *_, name=each.name: called.append(name)
        )
        for each in found
    ]
    tiny_model.predict(tiny_model.noise_like([0]), torch.tensor([1]), tiny_model.encode([""]))
    for hook in hooks:
        hook.remove()
    assert called == [each.name for each in found] and len(set(called)) == len(called) > 20


def test_what_is_observed_is_what_a_hook_sees(tiny_model, latents):
    """By hand: the output of one attention block, its maps with positions in front of features."""
    name, seen = "mid_block.attentions.0", []
    hook = tiny_model.denoiser.get_submodule(name).register_forward_hook(lambda *call: seen.append(call[2][0]))
    condition, t = tiny_model.encode(["church"]), torch.tensor([9, 9, 9])
    tiny_model.predict(latents, t, condition)
    hook.remove()
    found = observe(tiny_model, latents, t, condition, choose_hookpoints(tiny_model, [name]))
    assert torch.equal(found[name], seen[0].flatten(2).transpose(1, 2))
    assert torch.equal(pool(name, found[name], "mean"), found[name].mean(1))


def test_nothing_after_the_last_hookpoint_is_computed(tiny_model, latents):
    """The last up block is not run, and the network works as before afterwards."""
    condition, t = tiny_model.encode([""]), torch.tensor([1, 1, 1])
    before, ran = tiny_model.predict(latents, t, condition), []
    hook = tiny_model.denoiser.up_blocks[-1].register_forward_pre_hook(lambda *_: ran.append(1))
    observe(tiny_model, latents, t, condition, choose_hookpoints(tiny_model, ["mid_block"]))
    assert not ran
    assert torch.equal(tiny_model.predict(latents, t, condition), before) and ran
    hook.remove()


def test_rows_do_not_depend_on_batches_or_on_other_images(tiny_model, latents):
    places = choose_hookpoints(tiny_model, ["block", NOISY_LATENT])
    whole = extract(tiny_model, latents, [4, 7, 9], places, NOISING)
    parts = extract(tiny_model, latents, [4, 7, 9], places, NOISING, batch_size=5)
    alone = extract(tiny_model, latents[1:2], [7], places, NOISING)
    for name, each in whole.items():
        assert each.shape[:3] == (3, 2, 2)
        torch.testing.assert_close(parts[name], each, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(alone[name][0], each[1], atol=1e-5, rtol=1e-5)
    assert list(whole) == [each.name for each in places]


def test_noise_has_a_seed_for_every_image_timestep_and_draw():
    one = noise_of((4, 8, 8), 0, 1, 2, 3)
    assert torch.equal(one, noise_of((4, 8, 8), 0, 1, 2, 3))
    others = [noise_of((4, 8, 8), *seeds) for seeds in ((1, 1, 2, 3), (0, 2, 2, 3), (0, 1, 3, 3), (0, 1, 2, 4))]
    assert not any(torch.equal(one, other) for other in others)
    many = torch.stack([noise_of((4, 8, 8), 0, image, 1, 0) for image in range(200)])
    assert abs(many.mean()) < 0.01 and abs(many.std() - 1) < 0.01


def test_the_noisy_latent_is_what_add_noise_gives(tiny_model, latents):
    found = extract(tiny_model, latents, [4, 7, 9], choose_hookpoints(tiny_model, [NOISY_LATENT]), NOISING)
    noise = torch.stack([noise_of(latents.shape[1:], 3, image, 500, 1) for image in (4, 7, 9)])
    expected = tiny_model.add_noise(latents, noise, torch.tensor([500, 500, 500]))
    assert torch.equal(found[NOISY_LATENT][:, 1, 1], expected.flatten(1))


def test_prompts_count_where_they_are_given(tiny_model, latents):
    place = choose_hookpoints(tiny_model, ["mid_block", "text"])
    empty, one, each = (
        extract(tiny_model, latents, [0, 1, 2], place, Noising((9,)), prompts)
        for prompts in ([""], ["church"], ["church", "tench", "church"])
    )
    assert not torch.equal(empty["mid_block"], one["mid_block"])
    torch.testing.assert_close(each["mid_block"][0], one["mid_block"][0], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(each["mid_block"][1], one["mid_block"][1], atol=1e-4)
    text = next(name for name in each if name.startswith("text_encoder"))
    assert torch.equal(one[text][0], one[text][2]) and not torch.allclose(each[text][0], each[text][1])
    with pytest.raises(UserError, match="2 prompts for 3 images"):
        extract(tiny_model, latents, [0, 1, 2], place, Noising((9,)), ["a", "b"])


def test_random_weights_are_undone_bit_for_bit(tiny_model, latents):
    condition, t = tiny_model.encode([""]), torch.tensor([1, 1, 1])
    before, fingerprint = tiny_model.predict(latents, t, condition), tiny_model.fingerprint()
    with untrained(tiny_model, 1):
        one = tiny_model.predict(latents, t, condition)
    with untrained(tiny_model, 1):
        again = tiny_model.predict(latents, t, condition)
    assert torch.equal(one, again) and not torch.allclose(one, before)
    assert tiny_model.fingerprint() == fingerprint
    assert torch.equal(tiny_model.predict(latents, t, condition), before)


@pytest.mark.parametrize(
    "asked, told",
    [
        (["blok"], "did you mean 'block'"),
        (["mid_blok"], "did you mean 'mid_block'.*hookpoints model=.*lists all"),
        (["up_blocks.9*"], "no hookpoint fits the pattern 'up_blocks.9.*lists all"),
        ([], "no hookpoints: ask for at least one of"),
    ],
)
def test_wrong_places_are_answered(tiny_model, asked: list[str], told: str):
    with pytest.raises(UserError, match=told):
        choose_hookpoints(tiny_model, asked)


def test_a_wrong_name_is_answered_in_a_few_lines(tiny_model):
    with pytest.raises(UserError) as told:
        choose_hookpoints(tiny_model, ["mid_blok"])
    assert len(str(told.value)) < 400


def test_a_grid_is_the_mean_of_squares_of_positions():
    """By hand: 16 x 16 positions to 8 x 8; what is small or not square stays."""
    x = torch.arange(256.0).reshape(1, 256, 1).repeat(1, 1, 2)
    grid = pool("any", x, "grid")
    assert grid.shape == (1, 64, 2) and grid[0, 0].tolist() == [(0 + 1 + 16 + 17) / 4] * 2
    assert grid[0, 9, 0] == (34 + 35 + 50 + 51) / 4
    for positions in (16, 7):
        assert pool("any", x[:, :positions], "grid").shape == (1, positions, 2)
    assert torch.equal(pool(NOISY_LATENT, x, "mean"), grid.movedim(1, 2).flatten(1))


def test_every_kind_says_what_it_is(tiny_model):
    assert {each.kind for each in find_hookpoints(tiny_model)} == set(KINDS)
