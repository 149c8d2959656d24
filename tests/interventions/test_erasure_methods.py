"""Erasure methods: each against a computation of its own, resumed to the same bytes, and each as a run."""

import copy
import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from cad_exp.attribution.estimators import make_estimator
from cad_exp.attribution.game import Game
from cad_exp.attribution.objectives.build import make_objective
from cad_exp.config.options import options
from cad_exp.config.resolve import resolve
from cad_exp.data.noisy_latents import NoisyLatents
from cad_exp.interventions.edit import Edit
from cad_exp.interventions.methods import replace_weights
from cad_exp.interventions.methods.control import perturbation
from cad_exp.interventions.methods.esd import AHEAD, latents, trained
from cad_exp.interventions.spaces import FF, FF_IN, find_sites, make_granularity
from cad_exp.models.pipeline import DiffusionModel
from cad_exp.pipeline.stages.noisy_latents import spread_steps
from cad_exp.reporting.tables.collect import Found
from cad_exp.reporting.tables.layout import lay_out
from cad_exp.reporting.tables.plan import plan
from cad_exp.representations.sae.autoencoder import initial
from cad_exp.representations.sae.files import save
from cad_exp.representations.sae.selection import TopK
from cad_exp.utils.errors import UserError
from tests import warm
from tests.cli.test_cli import ROOT
from tests.config.test_configs import FOLDER, composed
from tests.pipeline.test_experiment import FAST, fast
from tests.tiny import build

CLOSED = {"prompt": "red church", "guide": "a dog", "preserve": ["", "a house"]}


def keys_and_values(model) -> dict[str, torch.Tensor]:
    """By the names that diffusers gives them in a UNet."""
    state = model.denoiser.state_dict()
    names = [name for name in state if name.endswith(("attn2.to_k.weight", "attn2.to_v.weight"))]
    return {name: state[name].double() for name in names}


def states(model, prompt: str) -> torch.Tensor:
    """(L, D) fp64 of the text encoder, and the last word's position by the mask."""
    tokens = model.pipe.tokenizer(prompt, padding="max_length", return_tensors="pt", truncation=True)
    with torch.no_grad():
        return model.pipe.text_encoder(tokens.input_ids)[0][0].double(), int(tokens.attention_mask.sum()) - 2


def by_hand(weight, erased, kept, lamb=0.1, preserve_scale=0.5):
    """UCE's formula as the paper writes it, vector by vector, for one matrix."""
    left, right = lamb * weight, lamb * torch.eye(weight.shape[1], dtype=torch.float64)
    for old, new in erased:
        left, right = left + torch.outer(weight @ new, old), right + torch.outer(old, old)
    for vector in kept:
        left = left + preserve_scale * torch.outer(weight @ vector, vector)
        right = right + preserve_scale * torch.outer(vector, vector)
    return left @ torch.linalg.inv(right)


def erased_pairs(model, tokens: str) -> list[tuple[torch.Tensor, torch.Tensor]]:
    (old, i), (new, j) = states(model, CLOSED["prompt"]), states(model, CLOSED["guide"])
    assert i != j, "the two prompts differ in length"
    number = {"all": len(old), "last": 1, "subject": len(old) - max(i, j)}[tokens]
    i, j = (0, 0) if tokens == "all" else (i, j)
    return [(old[i + k], new[j + k]) for k in range(number)]


def kept_vectors(model) -> list[torch.Tensor]:
    return [vector for prompt in CLOSED["preserve"] for vector in states(model, prompt)[0]]


@pytest.mark.parametrize("tokens", ["subject", "last", "all"])
def test_uce_is_the_papers_formula(tokens: str, tiny_model):
    edit = replace_weights({"name": "uce", "tokens": tokens, **CLOSED}, tiny_model)
    expected = keys_and_values(tiny_model)
    assert edit.replaced.keys() == expected.keys() and edit.indices == {}
    for name, weight in expected.items():
        found = by_hand(weight, erased_pairs(tiny_model, tokens), kept_vectors(tiny_model))
        torch.testing.assert_close(edit.replaced[name].double(), found, rtol=1e-5, atol=1e-6)
        assert not torch.allclose(found, weight, atol=1e-3)


def test_uce_takes_the_concept_to_the_guide(tiny_model):
    """With little weight on the old matrices and one word, the new keys and values are just the guide's."""
    settings = {"name": "uce", "tokens": "last", "lamb": 1e-6, **CLOSED, "preserve": []}
    edit = replace_weights(settings, tiny_model)
    [(old, new)] = erased_pairs(tiny_model, "last")
    for name, weight in keys_and_values(tiny_model).items():
        torch.testing.assert_close(edit.replaced[name].double() @ old, weight @ new, rtol=1e-3, atol=1e-4)


def test_rece_is_uce_and_then_the_same_for_what_regenerates(tiny_model):
    """Matrix by matrix; the regenerating vectors by least squares on all matrices in one stack."""
    edit = replace_weights({"name": "rece", "epochs": 2, "preserve_scale": 0.5, **CLOSED}, tiny_model)
    old = keys_and_values(tiny_model)
    now = {name: by_hand(w, erased_pairs(tiny_model, "all"), kept_vectors(tiny_model)) for name, w in old.items()}
    concept, neutral = (states(tiny_model, CLOSED[key])[0] for key in ("prompt", "guide"))
    width = concept.shape[1]
    for _ in range(2):
        system = torch.cat([*now.values(), 0.1**0.5 * torch.eye(width, dtype=torch.float64)])
        wanted = torch.cat([*(weight @ concept.T for weight in old.values()), torch.zeros(width, len(concept))])
        found = torch.linalg.lstsq(system, wanted).solution.T
        pairs = list(zip(found, neutral, strict=True))
        now = {name: by_hand(weight, pairs, kept_vectors(tiny_model)) for name, weight in now.items()}
    for name, weight in now.items():
        torch.testing.assert_close(edit.replaced[name].double(), weight, rtol=1e-4, atol=1e-5)
    assert len(edit.meta["residual"]) == 2 and all(0 < value < 1 for value in edit.meta["residual"])


def test_closed_forms_refuse_what_they_cannot_do(tiny_model):
    with pytest.raises(UserError, match="holds 'red church', which is to be erased"):
        replace_weights({"name": "uce", **CLOSED, "preserve": ["red church"]}, tiny_model)
    with pytest.raises(UserError, match="did you mean 'subject'"):
        replace_weights({"name": "uce", **CLOSED, "tokens": "subjekt"}, tiny_model)
    with pytest.raises(UserError, match="lamb=0 is out of range"):
        replace_weights({"name": "rece", **CLOSED, "lamb": 0}, tiny_model)
    with pytest.raises(UserError, match="does not take these settings"):
        replace_weights({"name": "uce", **CLOSED, "epochs": 2}, tiny_model)


@pytest.fixture(scope="module", params=["sdxl", "pixart", "sd3", "flux_schnell"])
def other(request, tmp_path_factory) -> DiffusionModel:
    """A tiny pipeline of another family."""
    folder = build(request.param, tmp_path_factory.mktemp(request.param) / "pipeline")
    return DiffusionModel.load(folder, device="cpu", name=request.param, steps=2, resolution=16)


def test_other_families(other):
    """Closed forms where there is cross-attention, with the text as it arrives there; else one sentence."""
    settings, before = {"name": "uce", "tokens": "all", "prompt": "church", "guide": "a dog"}, other.fingerprint()
    if other.name in ("sd3", "flux_schnell"):
        for name, more in (("uce", {}), ("rece", {}), ("esd", {"method": "esd-x", "steps": 1})):
            with pytest.raises(UserError, match="has no cross-attention.*edit=esd edit.method=esd-u"):
                replace_weights({"name": name, "prompt": "church", **more}, other)
    else:
        edit, text = replace_weights(settings, other), other.encode(["church", "a dog", ""]).text
        if other.name == "pixart":
            text = other.denoiser.caption_projection(text)
        old, new, kept = text.double().detach()
        found = [name for name in other.denoiser.state_dict() if "attn2.to_k" in name or "attn2.to_v" in name]
        assert set(edit.replaced) == {name for name in found if name.endswith("weight")}
        for name, matrix in edit.replaced.items():
            weight = other.denoiser.get_parameter(name).double()
            expected = by_hand(weight, list(zip(old, new, strict=True)), kept, preserve_scale=1.0)
            torch.testing.assert_close(matrix.double(), expected, rtol=1e-4, atol=1e-5)
    steps = {"name": "esd", "prompt": "church", "method": "esd-u", "steps": 2, "sampling_steps": 2, "lr": 1e-4}
    edit = replace_weights(steps, other)
    assert edit.meta["changed"] > 0 and all(torch.isfinite(value).all() for value in edit.replaced.values())
    with edit.apply(other):
        assert other.fingerprint() != before
    assert other.fingerprint() == before


ESD = {"name": "esd", "prompt": "church", "guide": "", "sampling_steps": 4, "lr": 1e-3, "seed": 3}


@pytest.mark.parametrize("method", ["esd-x", "esd-x-strict", "esd-u", "esd-all"])
def test_esd_trains_the_papers_layers(method: str, tiny_model):
    """By diffusers' names: attn2 is cross-attention; the public code takes Linears and convolutions only."""
    layers = [n for n, m in tiny_model.denoiser.named_modules() if isinstance(m, (torch.nn.Linear, torch.nn.Conv2d))]
    wanted = {
        "esd-x": lambda name: "attn2" in name,
        "esd-x-strict": lambda name: "attn2.to_k" in name or "attn2.to_v" in name,
        "esd-u": lambda name: "attn2" not in name,
        "esd-all": lambda name: True,
    }[method]
    assert {name.rpartition(".")[0] for name in trained(tiny_model.denoiser, method)} == set(filter(wanted, layers))


def test_one_step_of_esd_by_hand(tiny_model, monkeypatch):
    """Adam's first step is lr g / (|g| + 1e-8); g by autograd through a copy of the whole network."""
    seen, predict = [], type(tiny_model).predict

    def spy(self, x, t, condition, weights=None):
        seen.extend([(x, t)] if weights else [])
        return predict(self, x, t, condition, weights)

    monkeypatch.setattr(type(tiny_model), "predict", spy)
    settings = {**ESD, "steps": 1, "batch_size": 2, "negative_guidance": 1.5, "method": "esd-x-strict"}
    edit = replace_weights(settings, tiny_model)
    [(x, t)] = seen
    assert x.shape[0] == 2
    text = {prompt: states(tiny_model, prompt)[0].float().expand(2, -1, -1) for prompt in ("church", "")}
    network = copy.deepcopy(tiny_model.denoiser).requires_grad_()
    with torch.no_grad():
        cond, base = (tiny_model.denoiser(x, t, text[prompt], return_dict=False)[0] for prompt in ("church", ""))
    loss = (network(x, t, text["church"], return_dict=False)[0] - (base - 1.5 * (cond - base))).square().mean()
    loss.backward()
    assert edit.replaced.keys() == keys_and_values(tiny_model).keys()
    for name, new in edit.replaced.items():
        old, gradient = tiny_model.denoiser.get_parameter(name), network.get_parameter(name).grad
        sure = gradient.abs() > 0.02 * gradient.abs().max()  # where rounding cannot turn the step around
        expected = old - 1e-3 * gradient / (gradient.abs() + 1e-8)
        torch.testing.assert_close(new[sure], expected[sure], rtol=1e-4, atol=1e-6)
        assert sure.float().mean() > 0.5
    assert edit.meta["last_loss"] == pytest.approx(loss.item(), rel=1e-4)


def test_esd_leads_away_from_the_concept(tiny_model):
    """After some steps the prediction is nearer to its target, at latents that the training did not see."""
    edit = replace_weights({**ESD, "steps": 24, "lr": 1e-4, "batch_size": 4, "method": "esd-all"}, tiny_model)
    points = list(tiny_model.trajectory("church", "", [77], 4, 3.0))
    condition, before = tiny_model.encode(["church"]), tiny_model.fingerprint()

    def distance() -> float:
        with torch.no_grad():
            return sum(
                float((tiny_model.predict(p.x, torch.tensor([p.t]), condition) - (2 * p.base - p.cond)).square().mean())
                for p in points
            )

    intact = distance()
    with edit.apply(tiny_model):
        assert distance() < 0.5 * intact
    assert tiny_model.fingerprint() == before


def test_esd_that_was_killed_goes_on_to_the_same_bytes(tiny_model, tmp_path: Path):
    class Killed(Exception):
        pass

    def die(done: int, total: int) -> None:
        if done >= 24:
            raise Killed

    settings = {**ESD, "steps": 30, "checkpoint_every": 10, "method": "esd-x"}
    expected, draft = replace_weights(settings, tiny_model), tmp_path / "draft.safetensors"
    with pytest.raises(Killed):
        replace_weights(settings, tiny_model, draft, die)
    told = []
    again = replace_weights(settings, tiny_model, draft, lambda done, total: told.append(done))
    assert told == [24, 30], "the file was written after step 16, the first past a multiple of 10"
    again.save(tmp_path / "again.safetensors")
    expected.save(tmp_path / "expected.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "expected.safetensors").read_bytes()
    draft.write_bytes(draft.read_bytes()[:100])
    assert replace_weights(settings, tiny_model, draft).digest() == expected.digest(), "a damaged file is no file"
    assert replace_weights({**settings, "seed": 4}, tiny_model).digest() != expected.digest()


def test_esd_samples_each_step_by_its_number(tiny_model):
    """What a step sees is x_t of a trajectory of the intact model, at a time that the sampler visits."""
    times = {point.t for point in tiny_model.trajectory("church", "", [0], 4)}
    found = list(latents(tiny_model, "church", "", 8, 2, 4, 3.0, 0))
    again = list(latents(tiny_model, "church", "", 8, 2, 4, 3.0, 0))
    assert len(found) == AHEAD and all(torch.equal(a[0], b[0]) for a, b in zip(found, again, strict=True))
    assert {int(t) for _, batch, _, _ in found for t in batch} <= times
    x, t, cond, base = found[0]
    for condition, prediction in zip(tiny_model.encode(["church", ""]).split(1), (cond, base), strict=True):
        torch.testing.assert_close(tiny_model.predict(x, t, condition), prediction, rtol=1e-4, atol=1e-5)


def test_conceptprune_ranks_by_the_concept_where_it_exceeds_the_base(tiny_model, tiny_latents):
    """|w| ||x|| under both prompts, by hooks of our own on diffusers' second feed-forward layer."""
    space = make_granularity("weight", [FF]).on(find_sites(tiny_model.denoiser))
    game = Game(make_objective("erase", tiny_model, tiny_latents), space)
    found = space.split(make_estimator("wanda", rank="target").estimate(game).values)
    names = [name for name, _ in tiny_model.denoiser.named_modules() if name.endswith("ff.net.2")]
    assert set(found) == set(names)
    norms = {}
    for prompt in ("church", ""):
        inputs, hooks = {name: [] for name in names}, []
        for name in names:
            module, kept = tiny_model.denoiser.get_submodule(name), inputs[name]
            hooks.append(module.register_forward_hook(lambda _, args, out, kept=kept: kept.append(args[0])))
        text = states(tiny_model, prompt)[0].float()
        with torch.no_grad():
            tiny_model.denoiser(tiny_latents.x, tiny_latents.t, text.expand(len(tiny_latents), -1, -1))
        [hook.remove() for hook in hooks]
        norms[prompt] = {
            name: torch.cat(x).flatten(0, 1).norm(dim=0) / len(tiny_latents) ** 0.5 for name, x in inputs.items()
        }
    for name in names:
        weight = tiny_model.denoiser.get_submodule(name).weight.abs()
        target, base = weight * norms["church"][name], weight * norms[""][name]
        kept = torch.where(target > base, target, 0.0)
        torch.testing.assert_close(found[name], kept, rtol=1e-3, atol=1e-6)
        assert 0 < (kept > 0).float().mean() < 1


@pytest.mark.parametrize("granularity", ["weight", "neuron"])
def test_salun_is_the_gradients_size(granularity: str, tiny_model, tiny_latents):
    """|dJ/dw| by autograd on the parameters themselves; a component's is the sum over its weights."""
    sites, cut = find_sites(tiny_model.denoiser), make_granularity(granularity)
    found = make_estimator("saliency").estimate(Game(make_objective("erase", tiny_model, tiny_latents), cut.on(sites)))
    network = copy.deepcopy(tiny_model.denoiser).requires_grad_()
    text = states(tiny_model, "church")[0].float().expand(len(tiny_latents), -1, -1)
    output = network(tiny_latents.x, tiny_latents.t, text, return_dict=False)[0]
    (output - tiny_latents.base).square().mean().backward()
    slopes = {site.module: network.get_submodule(site.module).weight.grad.abs() for site in sites}
    torch.testing.assert_close(found.values, cut.on(sites).join(slopes), rtol=1e-3, atol=1e-7)


def test_a_perturbation_is_as_large_as_the_edit(tiny_model):
    edit = replace_weights({"name": "uce", **CLOSED}, tiny_model)
    noise, other = perturbation(edit, tiny_model, 1), perturbation(edit, tiny_model, 2)
    assert noise.replaced.keys() == edit.replaced.keys() and noise.digest() != other.digest() != edit.digest()
    assert noise.digest() == perturbation(edit, tiny_model, 1).digest()
    for name, new in edit.replaced.items():
        old = tiny_model.denoiser.get_parameter(name)
        assert float((noise.replaced[name] - old).norm()) == pytest.approx(float((new - old).norm()), rel=1e-3)
    assert noise.meta["edit"] == "random" and noise.meta["like"] == "uce"


def test_a_checkpoint_becomes_an_edit_of_what_it_changes(tiny_model, tmp_path: Path):
    weights = {name: tensor.clone() for name, tensor in tiny_model.denoiser.state_dict().items()}
    save_file(weights, tmp_path / "same.safetensors")
    with pytest.raises(UserError, match="the model already has"):
        replace_weights({"name": "checkpoint", "path": str(tmp_path / "same.safetensors")}, tiny_model)
    name = sorted(keys_and_values(tiny_model))[0]
    weights[name][0, :3] += 1
    save_file(weights, tmp_path / "erased.safetensors")
    edit = replace_weights({"name": "checkpoint", "path": str(tmp_path / "erased.safetensors")}, tiny_model)
    assert list(edit.replaced) == [name] and torch.equal(edit.replaced[name], weights[name])
    assert edit.meta["changed"] == 3 and edit.meta["weights"] == weights[name].numel()


@pytest.mark.parametrize(
    "trajectories, steps, chosen", [(4, 4, [0, 1, 2, 3]), (2, 4, [1, 3]), (1, 5, [2]), (4, 2, [0, 0, 1, 1])]
)
def test_one_step_of_each_trajectory(trajectories: int, steps: int, chosen: list[int]):
    expected = [number * steps + step for number, step in enumerate(chosen)]
    assert spread_steps(trajectories, steps).tolist() == expected


def test_independent_noisy_latents_are_one_step_of_each_trajectory(tmp_path: Path):
    few = ["noisy_latents.samples=4", "granularity=layer", "evaluation=none", "estimator=magnitude"]
    fast(tmp_path / "whole", *few)
    fast(tmp_path / "one", *few, "noisy_latents.independent=true")
    whole, one = (NoisyLatents.load(tmp_path / name / "noisy_latents.safetensors") for name in ("whole", "one"))
    assert len(one) == 4 and one.t.tolist() == whole.t[:4].tolist() and len(set(one.t.tolist())) == 4
    assert torch.equal(one.x, whole.x[[0, 5, 10, 15]]) and torch.equal(one.cond, whole.cond[[0, 5, 10, 15]])


def test_the_public_codes_settings():
    config = resolve(composed("edit=cad_public", "concept=nudity"))
    assert (config["concept"]["prompt"], config["concept"]["base_prompt"]) == ("naked", "")
    assert config["granularity"] == {"name": "weight", "kinds": [FF_IN, FF], "scope": "row"}
    edit = {"ratio": 0.001, "rounding": "floor", "scope": "row", "factor": 0.0, "sign": "positive"}
    assert edit.items() <= config["edit"].items()
    assert (config["objective"]["name"], config["estimator"]["name"]) == ("erase", "first_order")
    latents = {"samples": 50, "steps": 50, "guidance": 3.0, "independent": True}
    assert latents.items() <= config["noisy_latents"].items()
    other = resolve(composed("edit=cad_public", "concept=church", "edit.ratio=0.01", "noisy_latents.samples=2"))
    assert (other["edit"]["ratio"], other["noisy_latents"]["samples"], other["concept"]["prompt"]) == (
        0.01,
        2,
        "church",
    )
    assert resolve(composed("concept=nudity"))["concept"]["prompt"] == "naked person"


@pytest.mark.parametrize(
    "edit, own", [("magnitude", "magnitude"), ("conceptprune", "wanda"), ("salun_mask", "saliency")]
)
def test_methods_with_scores_of_their_own(edit: str, own: str):
    config = resolve(composed(f"edit={edit}", "granularity=neuron", "edit.count=7"))
    assert config["estimator"]["name"] == own and config["granularity"]["name"] == "neuron"
    assert (config["edit"]["count"], config["edit"]["ratio"]) == (7, None)
    with pytest.raises(UserError, match=f"estimator={own}: leave out the other"):
        resolve(composed(f"edit={edit}", "estimator=integrated_gradients"))


def test_saeuron_is_for_what_has_values_in_activations():
    config = resolve(composed("edit=saeuron"))
    assert config["granularity"]["name"] == "latent" and config["estimator"]["name"] == "activation_difference"
    assert config["edit"]["factor"] == -1 and len(config["estimator"]["others"]) == 8
    assert resolve(composed("edit=saeuron", "granularity=principal"))["granularity"]["name"] == "principal"
    with pytest.raises(UserError, match="granularity=weight: use granularity=latent or granularity=pri"):
        resolve(composed("edit=saeuron", "granularity=weight"))


@pytest.mark.parametrize("edit", ["uce", "rece", "esd"])
def test_no_result_claims_scores_that_were_not_used(edit: str):
    config = resolve(composed(f"edit={edit}", "concept=church", "estimator=first_order"))
    assert {config[group]["name"] for group in ("objective", "estimator", "granularity")} == {"none"}
    assert config["evaluation"]["fidelity"] is None and config["edit"]["prompt"] == "church"
    assert config == resolve(composed(f"edit={edit}", "concept=church", "estimator=first_order", "granularity=head"))
    with pytest.raises(UserError, match="it takes no edit.ratio"):
        resolve(composed(f"edit={edit}", "edit.ratio=0.1"))


def test_what_a_method_leaves_open_is_the_models():
    """The embedded model is trained in seconds, others with ESD's own settings; both can be changed."""

    def settings(*given: str) -> tuple[int, float]:
        config = resolve(composed("edit=esd", *given))
        assert "erasure_methods" not in config["model"], "a default is no setting of the run"
        return config["edit"]["steps"], config["edit"]["lr"]

    assert settings("model=sd14") == (1000, 1e-5) == settings("model=local", "model.path=x")
    assert settings() == (64, 1e-3) and settings("edit.steps=8") == (8, 1e-3)


STUDIES = ("objects_erase", "styles_erase", "nudity_erase", "adversarial")
CHOOSING = {"erase", "random", "conceptprune", "magnitude", "salun_mask"}


@pytest.mark.parametrize("name", STUDIES)
def test_the_tables_hold_every_method_at_one_budget(name: str):
    found = plan([f"experiment={name}"])
    concepts = {job.config["concept"]["name"] for job in found.jobs}
    methods = {(job.config["edit"]["name"], job.config["edit"].get("tokens")) for job in found.jobs}
    replacing = {("uce", "subject"), ("uce", "all"), ("rece", "all"), ("esd", None)}
    assert methods == {(edit, None) for edit in CHOOSING} | replacing
    assert len(found.jobs) == len(concepts) * len(methods) and {"edit.name", "edit.tokens"} <= set(found.study.keys)
    budgets = {
        (job.config["granularity"]["name"], *(job.config["edit"][key] for key in ("ratio", "factor", "scope")))
        for job in found.jobs
        if job.config["edit"]["name"] in CHOOSING
    }
    assert len(budgets) == 1
    table = lay_out(found, Found())
    shown = {text for column in table.columns for text in (column.head, column.group)}
    shown |= {label for row in table.rows for label in row.labels}
    assert {"CAD", "random", "ESD"} <= shown and not any("None" in text for text in shown)


def test_a_missing_checkpoint_is_told_before_any_work():
    with pytest.raises(UserError, match=r"no file of weights 'nowhere.pt': give edit.path=FILE"):
        resolve(composed("edit=checkpoint", "edit.path=nowhere.pt"))


SMALL = ["evaluation=erasure", "evaluation.samples=2", "model.steps=2", "concept=church"]
GATES = ["granularity=head", "edit.trajectories=1", "edit.steps=3", "edit.retain=[golf ball]"]
RUNS = {
    "magnitude": ["granularity=head"],
    "conceptprune": ["granularity=neuron"],
    "salun_mask": ["granularity=weight"],
    "cad_public": ["noisy_latents.samples=2", "noisy_latents.steps=2", "edit.ratio=0.05"],
    "joint": [*GATES, "edit.strength=9"],
    "hard_concrete": [*GATES, "edit.strength=9"],
    "greedy": [*GATES, "granularity=layer", "edit.batch=6", "edit.strength=99"],
    "uce": [],
    "uce_all": [],
    "rece": ["edit.epochs=1"],
    "esd": ["edit.steps=2"],
}


def test_every_option_is_run_somewhere():
    assert set(options("edit", [FOLDER])) == {*RUNS, "saeuron", "checkpoint", "erase", "amplify", "random", "none"}


@pytest.mark.parametrize("edit", RUNS)
def test_every_method_runs(edit: str, tmp_path: Path):
    results = fast(tmp_path, f"edit={edit}", *SMALL, *RUNS[edit], pictures=True)
    assert {metric["variant"] for metric in results["metrics"]} == {"unedited", "edited", "random"}
    edit = edit.removesuffix("_all")  # a preset
    assert results["run"]["complete"] and results["run"]["edit"] == edit
    edited, random = (Edit.load(tmp_path / f"{name}.safetensors") for name in ("edit", "edit_random"))
    assert edited.meta["edit"] == edit and random.meta["edit"] == "random" and edited.digest() != random.digest()
    assert results["run"]["changed_weights"] == edited.meta["changed"] > 0
    if edited.replaced:
        assert results["run"]["estimator"] == results["run"]["objective"] == results["run"]["granularity"] == "none"
        assert not (tmp_path / "attribution.safetensors").exists()
    else:
        assert random.meta["achieved"] == edited.meta["achieved"] > 0
        assert results["run"]["estimator"] == edited.meta["estimator"] and (tmp_path / "attribution.png").exists()


@pytest.mark.parametrize("ablation", ["scale", "resample"])
def test_saeuron_runs_on_latents(ablation: str, tmp_path: Path):
    place = "mid_block.attentions.0.transformer_blocks.0.attn2"
    save(tmp_path / "made" / place / "0", initial(128, 64, TopK(4), 0), {"hookpoint": place})
    given = [f"granularity.autoencoders={tmp_path / 'made'}", f"edit.ablation={ablation}"]
    results = fast(tmp_path / "run", "edit=saeuron", *given, *SMALL)
    edited, random = (Edit.load(tmp_path / "run" / f"{name}.safetensors") for name in ("edit", "edit_random"))
    assert edited.meta["edit"] == "saeuron" and edited.meta["estimator"] == "activation_difference"
    assert len(edited.meta["estimate"]["others"]) == 7, "a photo of a church names the concept"
    assert random.meta["achieved"] == edited.meta["achieved"] == 1 and results["run"]["changed_weights"] == 0
    assert all(("explained" in edit.meta) == (ablation == "resample") for edit in (edited, random))


def test_a_published_checkpoint_runs_as_an_edit(tmp_path: Path, capsys):
    """UCE's matrices as the authors save them: the run shows what the run of the edit itself showed."""
    own = fast(tmp_path / "uce", "edit=uce", *SMALL)
    matrices = Edit.load(tmp_path / "uce" / "edit.safetensors").replaced
    save_file(matrices, tmp_path / "uce.safetensors")
    given = ["edit=checkpoint", f"edit.path={tmp_path / 'uce.safetensors'}", "runtime.cache=null"]
    again = fast(tmp_path / "file", *given, *SMALL)
    values = [{m["variant"]: m["value"] for m in found["metrics"]} for found in (own, again)]
    assert values[0] == values[1]
    pictures = [sorted((tmp_path / name / "images" / "edited").rglob("*.png")) for name in ("uce", "file")]
    assert pictures[0] and all(a.read_bytes() == b.read_bytes() for a, b in zip(*pictures, strict=True))
    assert json.loads((tmp_path / "file" / "results.json").read_text())["run"]["edit"] == "checkpoint"
    assert "weights of" in capsys.readouterr().out


def test_a_method_comes_out_of_the_cache(tmp_path: Path, capsys):
    given = ["edit=esd", "edit.steps=2", "evaluation=none", "concept=church", f"runtime.cache={tmp_path / 'cache'}"]
    first = fast(tmp_path / "a", *given)
    capsys.readouterr()
    again = fast(tmp_path / "b", *given)
    assert "esd: from the cache" in capsys.readouterr().out
    assert first["run"]["config_hash"] == again["run"]["config_hash"]
    files = [tmp_path / name / "edit.safetensors" for name in "ab"]
    assert files[0].read_bytes() == files[1].read_bytes()
    other = fast(tmp_path / "c", *given, "edit.lr=2e-3")
    assert other["run"]["config_hash"] != first["run"]["config_hash"]
    assert (tmp_path / "c" / "edit.safetensors").read_bytes() != files[0].read_bytes()
    assert not list((tmp_path / "cache" / ".checkpoints").glob("*.safetensors"))


def test_a_training_that_is_killed_goes_on(tmp_path: Path):
    """kill -9 once a file of the unfinished training is there; the same command then ends as one left alone."""
    given = ["edit=esd", "edit.steps=24", "edit.checkpoint_every=8", "evaluation=none", "concept=church"]
    given += ["model.steps=2", "edit.method=esd-x-strict", "runtime.threads=1"]
    command = [*FAST, *given, "runtime.cache=cache", "hydra.run.dir=killed"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_WAIT_POLICY": "PASSIVE"}
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.STDOUT}
    process = warm.start(command, "torch", pictures=False, cwd=tmp_path, env=environment, **silent)
    unfinished, limit = tmp_path / "cache" / ".checkpoints", time.monotonic() + 120
    while not list(unfinished.glob("[!.]*.safetensors")):
        assert process.poll() is None and time.monotonic() < limit, "it ended before it was killed"
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed" / "edit.safetensors").exists()
    fast(tmp_path / "killed", *given, f"runtime.cache={tmp_path / 'cache'}")
    fast(tmp_path / "whole", *given)
    first, second = (tmp_path / name / "edit.safetensors" for name in ("killed", "whole"))
    assert first.read_bytes() == second.read_bytes() and not list(unfinished.glob("*.safetensors"))
