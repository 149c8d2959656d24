"""Latents of sparse autoencoders as components: from a folder of autoencoders to scores, edits and files."""

from pathlib import Path

import pytest
import torch

from cad_exp.attribution.attribute import Attribution, attribute
from cad_exp.attribution.game import Game
from cad_exp.attribution.objectives.build import make_objective
from cad_exp.interventions.edit import Edit
from cad_exp.interventions.encoder import Encoder
from cad_exp.interventions.granularity_registry import contents
from cad_exp.interventions.spaces import make_granularity
from cad_exp.interventions.spaces.directions import Directions, Place
from cad_exp.representations.latents import encoder_of, save_moments
from cad_exp.representations.sae.autoencoder import initial
from cad_exp.representations.sae.files import save
from cad_exp.representations.sae.moments import Moments
from cad_exp.representations.sae.selection import Threshold, TopK
from cad_exp.utils.errors import UserError
from tests.attribution.test_objectives import leftovers

PLACES = ("mid_block.attentions.0", "up_blocks.0.attentions.0")  # of the tiny UNet: 64 features each
WIDTH = 96


def autoencoder(seed: int, selects=None):
    """An untrained one, whose latents act now and then."""
    made = initial(64, WIDTH, selects or TopK(4), seed)
    bias = torch.randn(64, generator=torch.Generator().manual_seed(seed + 50)) / 10
    return made.with_tensors(made.tensors | {"b_dec": bias})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, place in enumerate(PLACES):
        save(tmp_path / "autoencoders" / place / "0", autoencoder(number), {"hookpoint": place})
        drawn = torch.randn(200, 64, generator=torch.Generator().manual_seed(number)) * torch.arange(1, 65)
        save_moments(tmp_path / "autoencoders" / place, Moments([drawn + 3]))
    return tmp_path / "autoencoders"


@pytest.mark.parametrize("selects", [TopK(3), Threshold(0.2)])
def test_an_encoder_reads_what_the_autoencoder_codes(selects):
    own, x = autoencoder(1, selects), torch.randn(7, 64, generator=torch.Generator().manual_seed(3))
    dense = torch.from_numpy(own.encode(x).matrix(WIDTH).toarray())
    torch.testing.assert_close(encoder_of(own).values(x), dense)
    assert (dense > 0).any(1).all()


def test_a_gate_scales_what_a_latent_adds_and_keeps_the_error(tiny_model, tiny_latents, folder):
    """By hand: h + sum (g - 1) z d, read from the intact activation; gates of 1 change no bit."""
    space = make_granularity("latent", autoencoders=str(folder)).of_model(tiny_model, [])
    assert space.n == 2 * WIDTH and [place.tap.module for place in space.places] == list(PLACES)
    latents = tiny_latents[:2]
    states = tiny_model.encode(["church"]).expand(2)
    gates = torch.ones(space.n)
    gates[:WIDTH] = torch.rand(WIDTH, generator=torch.Generator().manual_seed(4)) * 3 - 1
    own, module = autoencoder(0), tiny_model.denoiser.get_submodule(PLACES[0])

    def by_hand(_, args, output):
        h = output[0].movedim(1, -1)
        z = torch.from_numpy(own.encode(h.reshape(-1, 64)).matrix(WIDTH).toarray()).view(*h.shape[:-1], WIDTH)
        return ((h + (z * (gates[:WIDTH] - 1)) @ own.W_dec).movedim(-1, 1), *output[1:])

    with torch.no_grad():
        intact = tiny_model.predict(latents.x, latents.t, states)
        with space.gated(tiny_model, torch.ones(space.n)):
            assert torch.equal(tiny_model.predict(latents.x, latents.t, states), intact)
        with space.gated(tiny_model, gates):
            gated = tiny_model.predict(latents.x, latents.t, states)
        handle = module.register_forward_hook(by_hand)
        expected = tiny_model.predict(latents.x, latents.t, states)
        handle.remove()
    torch.testing.assert_close(gated, expected, atol=1e-5, rtol=1e-4)
    assert (gated - intact).abs().max() > 1e-3 and leftovers(tiny_model.denoiser) == 0


@pytest.mark.parametrize("ablation", ["zero", "mean", "resample"])
def test_scores_are_what_single_ablations_take(ablation, tiny_model, tiny_latents, folder):
    space = make_granularity("latent", autoencoders=str(folder), hookpoints=[PLACES[0]]).of_model(tiny_model, [])
    objective = make_objective("projection", tiny_model, tiny_latents[:3], 3, ablation=ablation)
    scores = attribute(tiny_model, tiny_latents[:3], objective, "leave_one_out", [space]).scores["latent"]
    game = Game(make_objective("projection", tiny_model, tiny_latents[:3], 3, ablation=ablation), space)
    most = scores.abs().argsort(descending=True)[:3]
    singly = [game.intact - game.value((torch.arange(space.n) != i).float()) for i in most]
    assert scores[most].tolist() == pytest.approx(singly, abs=2e-6) and min(map(abs, singly)) > 1e-6


def test_resampling_puts_the_base_prompts_value_there(tiny_model, tiny_latents, folder):
    """All latents resampled: what the base prompt's codes say, plus the concept's own error."""
    space = make_granularity("latent", autoencoders=str(folder), hookpoints=[PLACES[0]]).of_model(tiny_model, [])
    latents, own = tiny_latents[:2], autoencoder(0)
    states, base = (tiny_model.encode([prompt]).expand(2) for prompt in (latents.prompt, latents.base_prompt))
    module, seen = tiny_model.denoiser.get_submodule(PLACES[0]), []

    def z(h):
        return torch.from_numpy(own.encode(h.reshape(-1, 64)).matrix(WIDTH).toarray()).view(*h.shape[:-1], WIDTH)

    def swap(_, args, output):
        h = output[0].movedim(1, -1)
        return ((h - (z(h) - z(seen[0])) @ own.W_dec).movedim(-1, 1), *output[1:])

    with torch.no_grad():
        handle = module.register_forward_hook(lambda _, __, output: seen.append(output[0].movedim(1, -1)))
        tiny_model.predict(latents.x, latents.t, base)
        handle.remove()
        handle = module.register_forward_hook(swap)
        expected = tiny_model.predict(latents.x, latents.t, states)
        handle.remove()
        with space.gated(tiny_model, torch.zeros(space.n), {PLACES[0]: seen}):
            found = tiny_model.predict(latents.x, latents.t, states)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_from_scores_to_a_file_that_edits_a_plain_pipeline(tiny_model, tiny_latents, tiny_pipe, folder, tmp_path):
    """The file alone does it: the autoencoders may be gone. Undone exactly."""
    granularity = make_granularity("latent", autoencoders=str(folder))
    scored = attribute(tiny_model, tiny_latents[:3], "erase", "first_order", [granularity])
    scored.save(tmp_path)
    space = Attribution.load(tmp_path).space("latent")
    assert torch.equal(Attribution.load(tmp_path).scores["latent"], scored.scores["latent"])
    assert set(scored.tables["latent"]["module"]) == set(PLACES)
    chosen = scored.scores["latent"].abs().topk(12).indices.sort().values
    edit = space.intervention(chosen, -8.0)
    assert set(edit.indices) == set(PLACES) and space.components(edit).tolist() == chosen.tolist()
    assert edit.indices[PLACES[1]].tolist() == [int(each) - WIDTH for each in chosen if each >= WIDTH]
    again = Edit.load(edit.save(tmp_path / "edit.safetensors"))
    assert again.digest() == edit.digest() and again.encoders[PLACES[0]].k == 4

    def draw():
        seed = torch.Generator().manual_seed(0)
        return tiny_pipe("church", num_inference_steps=2, generator=seed, output_type="np").images

    before = draw()
    applied = again.apply(tiny_pipe)
    edited = draw()
    applied.undo()
    assert abs(edited - before).max() > 1e-4 and (draw() == before).all() and leftovers(tiny_pipe.unet) == 0
    with pytest.raises(UserError, match="changes activations and no weights"):
        edit.export(tiny_pipe, tmp_path / "exported")


def test_an_edit_and_its_gates_predict_the_same(tiny_model, tiny_latents, folder):
    space = make_granularity("latent", autoencoders=str(folder)).of_model(tiny_model, [])
    states, gates = tiny_model.encode(["church"]).expand(2), torch.ones(space.n)
    gates[[1, 7, WIDTH + 5]] = -3.0
    with torch.no_grad():
        with space.gated(tiny_model, gates):
            gated = tiny_model.predict(tiny_latents[:2].x, tiny_latents[:2].t, states)
        with space.intervention(torch.tensor([1, 7, WIDTH + 5]), -3.0).apply(tiny_model):
            edited = tiny_model.predict(tiny_latents[:2].x, tiny_latents[:2].t, states)
    torch.testing.assert_close(gated, edited, atol=1e-5, rtol=1e-4)


def test_principal_components_are_centred_and_orthogonal(tiny_model, folder):
    space = make_granularity("principal", autoencoders=str(folder)).of_model(tiny_model, [])
    place = space.places[0]
    torch.testing.assert_close(place.vectors @ place.vectors.T, torch.eye(64), atol=1e-5, rtol=0)
    assert space.n == 128 and place.encoder.signed
    h = torch.randn(5, 64) + place.encoder.centre
    without = h - place.encoder.values(h) @ place.vectors  # all components gone: the mean is left
    torch.testing.assert_close(without, place.encoder.centre.expand(5, 64), atol=1e-4, rtol=1e-4)


def test_wrong_folders_and_places_are_answered(tiny_model, folder, tmp_path):
    with pytest.raises(UserError, match="holds no autoencoders: task=sae makes them"):
        make_granularity("latent", autoencoders=str(tmp_path / "none")).of_model(tiny_model, [])
    with pytest.raises(UserError, match=f"did you mean '{PLACES[0]}'"):
        make_granularity("latent", autoencoders=str(folder), hookpoints=["mid_block.attentions.1"]).of_model(
            tiny_model, []
        )
    settings = {"name": "latent", "autoencoders": str(tmp_path / "none")}
    with pytest.raises(UserError, match="there is no folder .*: make it by `python -m cad_exp task=sae"):
        contents(settings)
    first = contents(settings | {"autoencoders": str(folder)})
    save(folder / PLACES[0] / "0", autoencoder(9), {})
    assert contents(settings | {"autoencoders": str(folder)}) != first
    (folder / PLACES[0] / "moments.safetensors").write_bytes(b"x")
    with pytest.raises(UserError, match="missing or damaged"):
        make_granularity("principal", autoencoders=str(folder)).of_model(tiny_model, [])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"bias": torch.zeros(3)}, "do not fit one another"),
        ({"weight": torch.full((WIDTH, 64), float("nan"))}, "no finite numbers"),
        ({"weight": torch.zeros(2, 64), "bias": torch.zeros(2)}, "does not fit its latents"),
        ({"k": 0}, "settings that mean nothing"),
    ],
)
def test_a_damaged_encoder_is_refused(change, said, tmp_path):
    own = encoder_of(autoencoder(0))
    parts = {name: change.get(name, getattr(own, name)) for name in ("weight", "bias", "centre")}
    broken = Encoder(**parts, k=change.get("k", own.k))
    space = Directions([Place.of("0", autoencoder(0).W_dec)], "latent")
    edit = space.intervention(torch.tensor([5]))
    edit.encoders["0"] = broken
    with pytest.raises(UserError, match=said):
        Edit.load(edit.save(tmp_path / "edit.safetensors"))


def test_a_missing_folder_is_one_sentence_before_torch(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    from cad_exp.config.resolve import resolve
    from cad_exp.pipeline import preflight
    from tests.config.test_configs import composed

    config = resolve(composed("granularity=latent", "granularity.autoencoders=nowhere"))
    with pytest.raises(UserError, match="granularity.autoencoders: there is no folder 'nowhere'"):
        preflight.graph_of(config)
