"""Mean differences as components: by hooks of our own on the tiny model, from scores to a file."""

import pytest
import torch

from cad_exp.attribution.attribute import Attribution, attribute
from cad_exp.interventions.edit import Edit
from cad_exp.interventions.selection import random_edit
from cad_exp.interventions.spaces import make_granularity
from cad_exp.models.pipeline import DiffusionModel
from cad_exp.representations.hookpoints import prompt_attentions
from cad_exp.utils.errors import UserError
from tests.attribution.test_objectives import leftovers
from tests.tiny import build

ASKED = {"prompt": "church", "base_prompt": "", "samples": 2, "steps": 5}  # as the tiny latents


def means(model, latents, name: str) -> list[torch.Tensor]:
    """The mean activation of a module under the concept's and the base prompt, one noisy latent after the other."""
    found = []
    for prompt in (latents.prompt, latents.base_prompt):
        seen = []
        hook = model.denoiser.get_submodule(name).register_forward_hook(lambda _, __, h, seen=seen: seen.append(h[0]))
        with torch.no_grad():
            for x, t in zip(latents.x.split(1), latents.t.split(1), strict=True):
                model.predict(x, t, model.encode([prompt]))
        hook.remove()
        found.append(torch.cat(seen).mean(0))
    return found


def test_the_direction_is_the_difference_of_means(tiny_model, tiny_latents):
    space = make_granularity("mean_difference", **ASKED).of_model(tiny_model, [])
    cross = [name for name, _ in tiny_model.denoiser.named_modules() if name.endswith("attn2")]
    assert {place.tap.module for place in space.places} == set(cross) and space.n == len(cross)
    place = space.places[1]
    concept, base = means(tiny_model, tiny_latents, place.tap.module)
    d = (concept - base) / (concept - base).norm()
    torch.testing.assert_close(place.vectors[0], d, atol=1e-4, rtol=1e-3)
    h = torch.randn(7, len(d), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(place.values(h)[:, 0], ((h - base) @ d).relu(), atol=1e-4, rtol=1e-3)
    assert float(place.values(concept)[0]) == pytest.approx(float((concept - base).norm()), rel=1e-3)


def test_from_scores_to_an_edit(tiny_model, tiny_latents, tmp_path):
    """At a factor of 0 no output has more of d than the base prompt's mean; undone exactly."""
    granularity = make_granularity("mean_difference", **ASKED)
    scored = attribute(tiny_model, tiny_latents[:3], "erase", "leave_one_out", [granularity])
    scored.save(tmp_path)
    space = Attribution.load(tmp_path).space("mean_difference")
    assert scored.scores["mean_difference"].abs().min() > 0
    edit = Edit.load(space.intervention(torch.tensor([1]), 0.0).save(tmp_path / "edit.safetensors"))
    place, seen = space.places[1], []
    states = tiny_model.encode(["church"]).expand(2)
    with torch.no_grad():
        intact = tiny_model.predict(tiny_latents[:2].x, tiny_latents[:2].t, states)
        with edit.apply(tiny_model):
            watch = tiny_model.denoiser.get_submodule(place.tap.module).register_forward_hook(
                lambda _, __, h: seen.append(h)
            )
            edited = tiny_model.predict(tiny_latents[:2].x, tiny_latents[:2].t, states)
            watch.remove()
        again = tiny_model.predict(tiny_latents[:2].x, tiny_latents[:2].t, states)
    assert seen[0].shape[0] == 2 and place.values(seen[0]).abs().max() < 1e-4
    assert torch.equal(intact, again) and (edited - intact).abs().max() > 1e-5 and leftovers(tiny_model.denoiser) == 0


def test_the_random_edit_has_other_directions_where_all_are_taken(tiny_model, tiny_latents):
    scored = attribute(
        tiny_model, tiny_latents[:3], "erase", "first_order", [make_granularity("mean_difference", **ASKED)]
    )
    space = scored.space("mean_difference")
    like = space.intervention(torch.arange(space.n), 0.0, {"scope": "global"})
    random, again, other = (random_edit(like, scored, seed=seed) for seed in (1, 1, 2))
    assert random.digest() == again.digest() and random.digest() != other.digest() != like.digest()
    for place in space.places:
        name = place.tap.module
        assert abs(float(random.vectors[name][0] @ place.vectors[0])) < 0.5
        assert random.vectors[name].norm() == pytest.approx(1) and torch.equal(
            random.encoders[name].centre, place.encoder.centre
        )
    few = space.intervention(torch.arange(2), 0.0, {"scope": "global"})
    drawn = random_edit(few, scored, seed=1)
    assert len(space.components(drawn)) == 2
    assert all(
        torch.equal(drawn.vectors[p.tap.module], p.vectors) for p in space.places if p.tap.module in drawn.vectors
    )


def test_two_equal_prompts_and_wrong_places_are_answered(tiny_model):
    with pytest.raises(UserError, match="has the same mean activation under both prompts"):
        make_granularity("mean_difference", **ASKED | {"base_prompt": "church"}).of_model(tiny_model, [])
    with pytest.raises(UserError, match="knows nothing of the prompt"):
        make_granularity("mean_difference", **ASKED, hookpoints=["noisy_latent"]).of_model(tiny_model, [])


def test_of_a_transformer_joint_attentions_are_taken(tmp_path):
    model = DiffusionModel.load(str(build("sd3", tmp_path / "sd3")), device="cpu", name="sd3", steps=4)
    found = prompt_attentions(model)
    assert found and all(each.name.endswith(".attn") for each in found)
