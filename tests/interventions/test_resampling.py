"""Resampling in an edit: the regression against NumPy, and what it does to a network, its file and its config."""

import numpy as np
import pytest
import torch

from cad_exp.config.resolve import resolve
from cad_exp.data.noisy_latents import sample_trajectory
from cad_exp.interventions.edit import Edit
from cad_exp.interventions.resampling import RIDGE, resampled
from cad_exp.interventions.spaces import find_sites, make_granularity
from cad_exp.interventions.spaces.directions import Directions, Place
from cad_exp.models.pipeline import DiffusionModel
from cad_exp.representations.hookpoints import choose_hookpoints
from cad_exp.utils.errors import UserError
from tests.attribution.test_objectives import leftovers
from tests.config.test_configs import composed
from tests.tiny import build

PLACE = "mid_block.attentions.0"  # of the tiny UNet: 64 features


@pytest.fixture(scope="module")
def edit() -> Edit:
    drawn = torch.randn(6, 64, generator=torch.Generator().manual_seed(0)) / 8
    return Directions([Place.of(PLACE, drawn, axis=1)]).intervention(torch.tensor([0, 2, 5]), 0.0)


def seen(model, latents, prompt: str) -> np.ndarray:
    """The activations (tokens, 64) of the place, one noisy latent after the other."""
    found = []
    hook = model.denoiser.get_submodule(PLACE).register_forward_hook(lambda _, __, h: found.append(h[0][0]))
    with torch.no_grad():
        for x, t in zip(latents.x.split(1), latents.t.split(1), strict=True):
            model.predict(x, t, model.encode([prompt]))
    hook.remove()
    return torch.stack(found).flatten(2).movedim(1, -1).reshape(-1, 64).double().numpy()


def test_it_is_the_ridge_regression_of_the_difference(tiny_model, tiny_latents, edit):
    concept, base = (seen(tiny_model, tiny_latents, prompt) for prompt in ("church", ""))
    z = concept @ edit.vectors[PLACE].double().numpy().T
    squares = z.T @ z
    ridge = RIDGE * squares.diagonal().mean()
    expected = np.linalg.solve(squares + ridge * np.eye(3), z.T @ (base - concept))
    made = resampled(edit, tiny_model, tiny_latents)
    np.testing.assert_allclose(-made.vectors[PLACE].numpy(), expected, atol=2e-4, rtol=2e-2)
    left = ((base - concept - z @ expected) ** 2).sum() / ((base - concept) ** 2).sum()
    assert made.meta["explained"][PLACE] == pytest.approx(1 - left, abs=1e-3) and 0 < left < 1
    assert made.indices == edit.indices and made.meta["ablation"] == "resample" and "ablation" not in edit.meta


def test_the_edit_adds_what_was_learned_and_is_undone(tiny_model, tiny_latents, edit, tmp_path):
    """h becomes h + z V, whatever the prompt; half of it at a factor of 1/2; the file does the same."""
    made = resampled(edit, tiny_model, tiny_latents)
    again = Edit.load(made.save(tmp_path / "edit.safetensors"))
    assert again.digest() == made.digest() != edit.digest()
    states, found = tiny_model.encode(["tench"]).expand(2), {}
    module = tiny_model.denoiser.get_submodule(PLACE)
    for name, own in {"intact": None, "whole": again, "half": resampled(edit, tiny_model, tiny_latents)}.items():
        applied = None
        if own is not None:
            own.factor = 0.5 if name == "half" else own.factor
            applied = own.apply(tiny_model)
        kept: list[torch.Tensor] = []
        hook = module.register_forward_hook(lambda _, __, h, kept=kept: kept.append(h[0].movedim(1, -1)))
        with torch.no_grad():
            tiny_model.predict(tiny_latents[:2].x, tiny_latents[:2].t, states)
        hook.remove()
        found[name] = kept[0]
        if applied is not None:
            applied.undo()
    h = found["intact"]
    added = (h @ edit.vectors[PLACE].T) @ -made.vectors[PLACE]
    torch.testing.assert_close(found["whole"], h + added, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(found["half"], h + added / 2, atol=1e-4, rtol=1e-3)
    assert added.abs().max() > 1e-4 and leftovers(tiny_model.denoiser) == 0


def test_all_that_is_linear_in_the_values_is_found(tiny_model, tiny_latents):
    """With as many directions as features the values hold everything, and more is explained than with three."""
    shares = []
    for number in (3, 64):
        space = Directions([Place.of(PLACE, torch.eye(64)[:number], axis=1)])
        made = resampled(space.intervention(torch.arange(number)), tiny_model, tiny_latents)
        shares.append(made.meta["explained"][PLACE])
    assert 0 < shares[0] < shares[1] <= 1


def test_joint_attention_changes_in_the_stream_of_the_image(tmp_path):
    """A transformer's attention returns both streams: that of the image becomes h + z V, that of the text stays."""
    model = DiffusionModel.load(str(build("sd3", tmp_path / "sd3")), device="cpu", name="sd3", steps=4)
    latents = sample_trajectory(model, "church", "", seeds=[0], steps=2)
    place = choose_hookpoints(model, ["transformer_blocks.1.attn"])[0]
    drawn = torch.randn(4, 32, generator=torch.Generator().manual_seed(0)) / 6
    edit = Directions([Place(place.tap, drawn)]).intervention(torch.arange(4))
    made, found = resampled(edit, model, latents), list[tuple[torch.Tensor, ...]]()
    module = model.denoiser.get_submodule(place.name)
    for own in (None, made):
        applied = None if own is None else own.apply(model)
        hook = module.register_forward_hook(lambda _, __, h: found.append(h))
        with torch.no_grad():
            model.predict(latents.x, latents.t, model.encode(["church"]))
        hook.remove()
        if applied is not None:
            applied.undo()
    (h, text), (edited, same) = found
    added = (h @ drawn.T) @ -made.vectors[place.name]
    torch.testing.assert_close(edited, h + added, atol=1e-4, rtol=1e-3)
    assert torch.equal(text, same) and added.abs().max() > 1e-4 and 0 < made.meta["explained"][place.name] <= 1


def test_it_is_for_directions(tiny_model, tiny_latents):
    space = make_granularity("head").on(find_sites(tiny_model.denoiser))
    with pytest.raises(UserError, match="resample is for directions"):
        resampled(space.intervention(torch.tensor([0])), tiny_model, tiny_latents)
    with pytest.raises(UserError, match="resample is not for granularity=head: use granularity=latent or"):
        resolve(composed("edit=erase", "granularity=head", "edit.ablation=resample"))


def test_what_a_config_leaves_open():
    def chosen(*given: str) -> tuple[str, float]:
        edit = resolve(composed("edit=erase", *given))["edit"]
        return edit["ablation"], edit["factor"]

    assert chosen("granularity=latent") == ("resample", -1)
    assert chosen("granularity=latent", "edit.ablation=scale") == ("scale", -1) == chosen("edit=saeuron")
    assert chosen("granularity=latent", "edit=amplify") == ("scale", 0) == chosen("granularity=weight")
    assert chosen("granularity=principal", "edit.ablation=resample") == ("resample", -1)
