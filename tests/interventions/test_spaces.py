"""Component spaces: what gates mean, for weights and for directions of an activation, from scores to edits."""

import re
from pathlib import Path

import pytest
import torch
from torch import nn

from cad_exp.attribution.attribute import Attribution, attribute
from cad_exp.attribution.estimators import make_estimator
from cad_exp.attribution.game import Game
from cad_exp.attribution.objectives.build import make_objective
from cad_exp.data.noisy_latents import NoisyLatents
from cad_exp.evaluation.fidelity.ablations import ablation_fidelity
from cad_exp.evaluation.fidelity.metrics import fidelity_metrics
from cad_exp.interventions.edit import Edit
from cad_exp.interventions.selection import random_edit, select
from cad_exp.interventions.spaces import FF, Directions, Site, find_sites, make_granularity
from cad_exp.interventions.spaces.directions import Place
from cad_exp.utils.errors import UserError
from tests.attribution.test_objectives import leftovers
from tests.evaluation.test_fidelity import SETTINGS

ROOT = Path(__file__).resolve().parents[2]
BLOCK = "mid_block.attentions.0.transformer_blocks.0"  # of the tiny UNet: 64 features


class RandomDirections(Directions):
    """k random unit directions of a module's output."""

    def __init__(self, module: str, width: int, k: int, seed: int = 0, axis: int = -1):
        vectors = torch.randn(k, width, generator=torch.Generator().manual_seed(seed))
        super().__init__([Place.of(module, vectors / vectors.norm(dim=1, keepdim=True), axis)])


class Linear:
    """y = w h, h = W x + e: the prompt of one letter adds A to h, and w A = 5. `pipe` is a plain module of its own."""

    device, name = torch.device("cpu"), "linear"
    A, W = torch.tensor([1.0, 2.0, 0.0]), torch.tensor([[3.0, 1.0, 1.0]])

    def __init__(self):
        self.denoiser = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 1, bias=False))
        self.denoiser[0].weight.data, self.denoiser[1].weight.data = torch.eye(3), self.W.clone()

    def encode(self, prompts, differentiable=False):
        return torch.tensor([[[float(len(prompt))]] for prompt in prompts])

    def predict(self, x, t, states):
        return self.denoiser(x + states[:, 0] * self.A)

    def fingerprint(self):
        return "0"


def linear(model):
    """Two noisy latents: base predictions w x, and 5 more under the concept's prompt."""
    x = torch.tensor([[1.0, -1.0, 2.0], [0.5, 3.0, 0.0]])
    base = x @ model.W.T
    return NoisyLatents(x, torch.tensor([9, 1]), base, base + 5, None, "c", "", {"kind": "trajectory"})


HAND = torch.tensor([[1, 0, 0], [0, 0.6, 0.8], [0.6, 0, -0.8], [0, 0, 1], [-0.8, 0.6, 0]])
# (w d)(d A) / (w A): 3 * 1 / 5, 1.4 * 1.2 / 5, 1 * 0.6 / 5, 1 * 0 / 5, -1.8 * 0.4 / 5
SCORES = [0.6, 0.336, 0.12, 0.0, -0.144]
EXACT = {
    "leave_one_out": {},
    "first_order": {},
    "integrated_gradients": {"steps": 2},
    "ablated_gradients": {"patterns": 4, "rates": [0.4]},
    "activation_patching": {},
    "shapley": {"permutations": 4},
}


@pytest.mark.parametrize("name", EXACT)
def test_every_estimator_knows_a_directions_share_of_a_linear_model(name):
    """J = <change, 5> / 25 is linear in every gate: the score of direction d is (w d)(d A) / (w A)."""
    model = Linear()
    drawn = RandomDirections("0", 3, 4)
    shares = (drawn.places[0].vectors @ model.W[0]) * (drawn.places[0].vectors @ model.A) / 5
    for space, expected in ((Directions([Place.of("0", HAND)]), torch.tensor(SCORES)), (drawn, shares)):
        estimator = make_estimator(name, **EXACT[name])
        found = attribute(model, linear(model), "projection", estimator, [space], batch_size=1)
        torch.testing.assert_close(found.scores["direction"], expected, atol=2e-6, rtol=1e-5)
    assert leftovers(model.denoiser) == 0


@pytest.mark.parametrize("direction", ["noising", "denoising"])
def test_patching_swaps_a_directions_part(direction):
    """erase: J = (y - base)^2 = 25; without d_0's part of A, y - base is 5 - 3 = 2: 25 - 4; alone it gives 3^2."""
    model = Linear()
    estimator = make_estimator("activation_patching", direction=direction)
    scores = estimator.estimate(
        Game(make_objective("erase", model, linear(model)), Directions([Place.of("0", HAND[:1])]))
    )
    assert scores.values.tolist() == pytest.approx([21 if direction == "noising" else 9])


def test_from_scores_of_directions_to_an_edit_a_study_and_a_table(tmp_path):
    model, space = Linear(), Directions([Place.of("0", HAND)])
    latents = linear(model)
    scored = attribute(model, latents, "projection", "leave_one_out", [space], meta={"concept": "c"})

    # the table of components, and the file
    table = scored.tables["direction"]
    assert table["name"].tolist() == [f"0 · direction {i}" for i in range(5)]
    assert table["score"].tolist() == pytest.approx(SCORES, abs=1e-6) and set(table["module"]) == {"0"}
    assert scored.top(2)["name"].tolist() == ["0 · direction 0", "0 · direction 1"]
    assert scored.top(9, sign=-1)["score"].tolist() == pytest.approx([-0.144])
    assert repr(scored) == "<Attribution c · leave_one_out · projection · 5 directions>"
    scored.save(tmp_path)
    loaded = Attribution.load(tmp_path)
    assert torch.equal(loaded.scores["direction"], scored.scores["direction"]) and loaded.meta == scored.meta
    assert torch.equal(loaded.space("direction").places[0].vectors, HAND) and loaded.sites == []
    assert loaded.tables["direction"].equals(table)

    # selection and edit: without d_0 and d_1 the concept has 1 - 0.6 - 0.336 of its 1 left
    edit = select(loaded, "direction", count=2)
    assert edit.indices["0"].tolist() == [0, 1] and edit.meta["estimator"] == "leave_one_out"
    assert (edit.meta["achieved"], edit.meta["components"], edit.meta["granularity"]) == (2, 5, "direction")
    again = Edit.load(edit.save(tmp_path / "edit.safetensors"))
    assert again.digest() == edit.digest() != select(loaded, "direction", count=1).digest() and again.meta == edit.meta
    assert (tmp_path / "edit.safetensors").stat().st_size < 5_000
    game = Game(make_objective("projection", model, latents), loaded.space("direction"))
    with again.apply(model):
        assert make_objective("projection", model, latents).value() == pytest.approx(0.064, abs=1e-6)
    gates = torch.tensor([0.0, 0, 1, 1, 1])
    assert game.value(gates) == pytest.approx(0.064, abs=1e-6)
    assert game.values(torch.stack([gates, 0 * gates, gates + 1 - gates])).tolist() == pytest.approx(
        [0.064, 1 - sum(SCORES), 1], abs=1e-6
    )
    other = random_edit(edit, loaded, seed=1)
    assert other.meta["achieved"] == 2 and loaded.space("direction").components(other).tolist() != [0, 1]
    half = loaded.space("direction").intervention(torch.tensor([4, 0]), torch.tensor([2.0, 0.5]))
    assert half.indices["0"].tolist() == [0, 4] and half.factors["0"].tolist() == [0.5, 2.0]
    with Edit.load(half.save(tmp_path / "half.safetensors")).apply(model):  # half of 0.6 is lost, -0.144 comes twice
        assert make_objective("projection", model, latents).value() == pytest.approx(1 - 0.3 - 0.144, abs=1e-6)
    assert leftovers(model.denoiser) == 0 and game.intact == pytest.approx(1)

    # the fidelity study: every prediction is right
    records, found = ablation_fidelity(game, loaded.scores["direction"], [0.4], 8, ["uniform"])
    assert (
        len(records) == 8
        and found[0]["r2"][0] == pytest.approx(1)
        and found[0]["bias"][0] == pytest.approx(0, abs=1e-6)
    )
    metrics, _ = fidelity_metrics(game, loaded.scores["direction"], SETTINGS)
    assert {metric["definition"]["granularity"] for metric in metrics} == {"direction"}


@pytest.mark.parametrize(("module", "axis"), [(BLOCK, -1), ("mid_block.attentions.0", 1)])
def test_directions_of_a_plain_pipeline(module, axis, tiny_model, tiny_latents, tiny_pipe, tmp_path):
    """Scores, an edit in one line on diffusers' own pipeline, against a hook of the test's own; undone exactly."""
    space = RandomDirections(module, 64, 3, axis=axis)
    scored = attribute(tiny_model, tiny_latents[:4], "projection", "leave_one_out", [space])
    game = Game(make_objective("projection", tiny_model, tiny_latents[:4], 3), space)
    singly = [game.intact - game.value(1 - torch.eye(3)[i]) for i in range(3)]
    assert scored.scores["direction"].tolist() == pytest.approx(singly, abs=2e-6) and min(map(abs, singly)) > 1e-5

    def draw():
        seed = torch.Generator().manual_seed(0)
        return tiny_pipe("church", num_inference_steps=2, generator=seed, output_type="np").images

    edit = select(scored, "direction", "positive" if max(singly) > 0 else "negative", count=1)
    edit.save(tmp_path / "edit.safetensors")
    before = draw()
    applied = Edit.load(tmp_path / "edit.safetensors").apply(tiny_pipe)
    edited = draw()
    applied.undo()
    (vector,) = edit.vectors[module]

    def remove(_, args, output):
        h = output[0] if isinstance(output, tuple) else output
        part = (h.movedim(axis, -1) @ vector)[..., None] * vector
        h = h - part.movedim(-1, axis)
        return (h, *output[1:]) if isinstance(output, tuple) else h

    handle = tiny_pipe.unet.get_submodule(module).register_forward_hook(remove)
    by_hand = draw()
    handle.remove()
    torch.testing.assert_close(torch.from_numpy(edited), torch.from_numpy(by_hand), atol=1e-5, rtol=1e-4)
    assert abs(edited - before).max() > 1e-4 and (draw() == before).all() and leftovers(tiny_pipe.unet) == 0
    with pytest.raises(UserError, match="changes activations and no weights"):
        edit.export(tiny_pipe, tmp_path / "exported")


def spaces(model):
    sites = find_sites(model.denoiser)
    made = [make_granularity(name).on(sites) for name in ("weight", "neuron", "head", "layer")]
    return {space.name: space for space in [*made, RandomDirections(BLOCK, 64, 3)]}


@pytest.mark.parametrize("name", ["weight", "neuron", "head", "layer", "direction"])
def test_gated_is_differentiable_and_what_objectives_see(name, tiny_model, tiny_latents):
    """The loss under `gated`, and its gradient by autograd, against `value_and_gradient`; nothing is left behind."""
    space, before = spaces(tiny_model)[name], tiny_model.fingerprint()
    latents = tiny_latents[:3]
    game = Game(make_objective("erase", tiny_model, latents), space)
    gates = torch.rand(space.n, generator=torch.Generator().manual_seed(0), requires_grad=True)
    states = game.objective.concept.expand(3)
    with space.gated(tiny_model, gates):
        loss = (tiny_model.predict(latents.x, latents.t, states) - latents.base).square().mean()
    (slope,) = torch.autograd.grad(loss, gates)
    value, gradient = game.value_and_gradient(gates)
    assert value == pytest.approx(loss.item(), rel=1e-5)
    torch.testing.assert_close(gradient, slope, atol=1e-4 * slope.abs().max().item(), rtol=1e-3)
    assert tiny_model.fingerprint() == before and leftovers(tiny_model.denoiser) == 0
    assert all(isinstance(p, nn.Parameter) and not p.requires_grad for p in tiny_model.denoiser.parameters())


@pytest.mark.parametrize("name", ["neuron", "head", "layer", "direction"])
def test_rows_have_gates_of_their_own(name, tiny_model, tiny_latents):
    space, latents = spaces(tiny_model)[name], tiny_latents[:3]
    gates = torch.rand(3, space.n, generator=torch.Generator().manual_seed(1))
    states = tiny_model.encode(["church"]).expand(3)
    with torch.no_grad():
        with space.gated(tiny_model, gates):
            together = tiny_model.predict(latents.x, latents.t, states)
        for row in range(3):
            with space.gated(tiny_model, gates[row]):
                alone = tiny_model.predict(latents.x[row : row + 1], latents.t[row : row + 1], states[row : row + 1])
            torch.testing.assert_close(together[row : row + 1], alone, atol=1e-5, rtol=1e-4)


def test_weights_cannot_have_gates_per_row(tiny_model):
    space = spaces(tiny_model)["weight"]
    with pytest.raises(UserError, match="gates of their own for granularity weight"):
        space.row_gating(tiny_model, torch.ones(1, 1))


def test_ablations_of_a_model_with_an_edited_activation(tiny_model, tiny_latents):
    """What is replayed is what a block gave before the edit's own hook, which then acts once and not twice."""
    edit = RandomDirections("up_blocks.0.resnets.0", 64, 2, seed=3, axis=1).intervention(torch.tensor([0, 1]), 3.0)
    with edit.apply(tiny_model):
        game = Game(make_objective("erase", tiny_model, tiny_latents[:3], 4), spaces(tiny_model)["layer"])
        gates = 1 - torch.eye(game.n)
        assert game.values(gates).tolist() == pytest.approx([game.value(row) for row in gates], rel=1e-4)


def test_what_directions_cannot_do(tiny_model, tmp_path):
    space = Directions([Place.of("0", HAND)])
    with pytest.raises(UserError, match="estimator magnitude is not for granularity direction: use granularity=weight"):
        make_estimator("magnitude").estimate(Game(make_objective("projection", Linear(), linear(Linear())), space))
    with pytest.raises(UserError, match="has no scope 'row'"):
        space.segments("row")
    for wrong, message in ((HAND[0], "one direction a row"), (HAND[:0], "no components")):
        with pytest.raises(UserError, match=message):
            Game(make_objective("projection", Linear(), linear(Linear())), Directions([Place.of("0", wrong)]))
    with pytest.raises(UserError, match="directions live in the denoiser"):
        Directions([Place.of("text_encoder:layers.0", HAND)])
    edit = space.intervention(torch.tensor([0]))
    with pytest.raises(UserError, match="no module '0'"):
        edit.apply(tiny_model)
    Edit(edit.indices, edit.unit, 0.0, {}).save(tmp_path / "without.safetensors")
    with pytest.raises(UserError, match="does not have its directions"):
        Edit.load(tmp_path / "without.safetensors")
    Edit(edit.indices, edit.unit, 0.0, {}, vectors={"0": HAND}, taps={"0": (-1, 0)}).save(tmp_path / "more.safetensors")
    with pytest.raises(UserError, match="vectors of '0' that do not fit"):
        Edit.load(tmp_path / "more.safetensors")


def test_one_file_has_one_list_of_sites(tiny_model):
    """It is what spaces are made of again."""
    sites = find_sites(tiny_model.denoiser)
    some = {"head": make_granularity("head").on(sites), "layer": make_granularity("layer").on(sites[3:])}
    with pytest.raises(UserError, match="cut from different sites"):
        Attribution({name: torch.zeros(space.n) for name, space in some.items()}, some)


def test_weights_with_factors_of_their_own(tmp_path):
    """Columns 0 and 2 of [[1, 2, 3], [4, 5, 6]] by 2 and -1, entries 1 and 5 by 0 and 0.5; a file keeps them."""
    layer, sites = nn.Sequential(nn.Linear(3, 2, bias=False)), [Site("0", "0", FF, (2, 3))]
    layer[0].weight.data = torch.arange(1.0, 7).view(2, 3)
    for name, selected, factors, wanted in (
        ("neuron", [2, 0], [-1.0, 2.0], [[2, 2, -3], [8, 5, -6]]),
        ("weight", [5, 1], [0.5, 0.0], [[1, 0, 3], [4, 5, 3]]),
    ):
        space = make_granularity(name).on(sites)
        edit = space.intervention(torch.tensor(selected), torch.tensor(factors))
        loaded = Edit.load(edit.save(tmp_path / f"{name}.safetensors"))
        in_order = sorted(factors, key=lambda f: selected[factors.index(f)])
        assert loaded.digest() == edit.digest() and space.factors(loaded).tolist() == in_order
        with loaded.apply(layer):
            assert layer[0].weight.tolist() == wanted
        assert layer[0].weight.flatten().tolist() == [1, 2, 3, 4, 5, 6]


def test_every_space_knows_the_factors_of_an_edit(tiny_model):
    """In the order of its components, also where a component has several indices, or all have one factor."""
    sites = find_sites(tiny_model.denoiser)
    spaces = [make_granularity(name).on(sites) for name in ("head", "neuron", "weight", "layer")]
    for space in [*spaces, Directions([Place.of("a", torch.eye(3)), Place.of("b", torch.eye(2))])]:
        selected = torch.randperm(space.n)[: max(1, space.n // 2)]
        wanted, order = torch.randn(len(selected)), selected.argsort()
        assert torch.equal(space.factors(space.intervention(selected, wanted)), wanted[order]), space.name
        assert set(space.factors(space.intervention(selected, -1.0)).tolist()) == {-1.0}


def test_an_edit_of_millions_of_weights_can_be_written(tmp_path):
    """A safetensors file holds 100 MB of text at most: what grows with the components belongs to its tensors."""
    sizes = []
    for side in (10, 400):
        space = make_granularity("weight").on([Site("0", "0", FF, (side, side))])
        file = space.intervention(torch.arange(space.n), torch.rand(space.n)).save(tmp_path / f"{side}.safetensors")
        sizes.append(int.from_bytes(file.read_bytes()[:8], "little"))
    assert abs(sizes[1] - sizes[0]) < 100, "the header grows with the number of weights"


def test_one_module_has_the_hooks_and_no_place_names_a_granularity():
    """Closed forms read the text where it enters a projection, which is no gate."""
    hooks, names = set(), set()
    for floor in ("attribution", "evaluation", "interventions"):
        for file in sorted((ROOT / "cad_exp" / floor).rglob("*.py")):
            text = file.read_text(encoding="utf-8")
            if "register_forward" in text or '"forward"' in text:
                hooks.add(file.relative_to(ROOT / "cad_exp").as_posix())
            if re.search(
                r'== "(weight|neuron|head|layer)"|isinstance\(\w+, (Columns|Entries|Directions|Weight)\)', text
            ):
                names.add(file.name)
    assert hooks == {"interventions/gating.py", "interventions/methods/projections.py"} and not names
