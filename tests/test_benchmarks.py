"""Benchmarks: they run, their peers compute the same as ours, and the results file is complete. Nothing is timed."""

import json

import pytest
import torch

from benchmarks import __main__ as benchmarks
from benchmarks.ablations import ablations_of, one_by_one
from benchmarks.interactions import ablations, second_differences
from benchmarks.measure import alternate, row
from benchmarks.memory import peak, reset, resident
from benchmarks.models import MODELS, sd14_shape, sd14_unet
from benchmarks.public import our_cost, public_attribution, public_cost
from benchmarks.sae import Data
from benchmarks.sae_rivals import missing
from benchmarks.scaling import line, plot
from cad_exp import DiffusionModel, attribute, find_sites, make_granularity, make_objective, sample_trajectory
from cad_exp.attribution.game import Game
from cad_exp.attribution.gates.joint import Joint
from cad_exp.attribution.gates.task import Task
from cad_exp.attribution.interactions.second_order import second_difference, second_order

FIELDS = {"name", "unit", "ours", "peer", "ratio", "target", "met", "notes", "threads", "load"}
CHEAP = ("granularities", "ablations", "interactions")


def test_quick_run(tmp_path, capsys):
    """Cheap rows on the embedded model, one after the other: each keeps the results of those before."""
    for name in CHEAP:
        assert benchmarks.main(["--quick", "--only", name, "--out", str(tmp_path)]) == 0
    (path,) = tmp_path.glob("*-mini.json")
    found = json.loads(path.read_text())
    assert set(found) == {"rows", "model", "quick", "repeats", "machine"} and found["quick"] and found["repeats"] == 1
    assert set(found["rows"]) == set(CHEAP)
    assert set(found["machine"]) == {"device", "capability", "cores", "python", "versions"}
    assert set(found["machine"]["versions"]) == {"torch", "diffusers", "transformers", "numpy"}
    for measured in (one for rows in found["rows"].values() for one in rows):
        assert set(measured) == FIELDS and measured["ours"] > 0 and measured["ratio"] > 0
        assert measured["met"] in (True, False) and measured["target"]
    shown = capsys.readouterr().out
    assert "all granularities against head alone" in shown and "single ablations" in shown
    assert "interactions of all pairs" in shown
    assert not list(tmp_path.glob(".*")), "no draft is left"


def test_big_model_is_refused_without_a_gpu(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert benchmarks.main(["--model", "sd14_shape", "--only", "startup"]) == 1
    assert "--model mini, or add --force" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        benchmarks.main(["--only", "nothing"])


def test_public_procedure_gives_our_scores(tiny_model):
    """The peer walks its own trajectories and differentiates everything, and still arrives at the same numbers."""
    before = tiny_model.fingerprint()
    theirs = public_attribution(tiny_model, "church", "", seed=3, steps=4)
    latents = sample_trajectory(tiny_model, "church", "", seeds=[3], steps=4)
    mine, start = attribute(tiny_model, latents, "erase").scores["weight"], 0
    for site in find_sites(tiny_model.denoiser):
        ours, start = mine[start : start + site.size].view(site.shape), start + site.size
        torch.testing.assert_close(ours, theirs[site.module], atol=1e-3 * ours.abs().max().item(), rtol=1e-3)
    assert tiny_model.fingerprint() == before
    assert all(p.grad is None and not p.requires_grad for p in tiny_model.denoiser.parameters())


def test_costs_by_hand():
    """Three steps: 0 + 1 + 2 guided steps of two forwards, then three times a base, a forward, a backward of two."""
    assert public_cost(3) == 2 * 3 + 3 * 4 and our_cost(3) == 3 * 2 + 3 * 3
    assert (our_cost(50), public_cost(50)) == (250, 2650)


def test_one_by_one_equals_values(tiny_model, tiny_latents):
    objective, sites = make_objective("erase", tiny_model, tiny_latents[:2]), find_sites(tiny_model.denoiser)
    space, chosen = make_granularity("head").on(sites), torch.tensor([0, 5, 9])
    gates, places = ablations_of(space, chosen)
    singly = one_by_one(objective, tiny_model.denoiser, places)
    assert objective.values(space, gates).tolist() == pytest.approx(singly, rel=1e-5)


def test_measuring():
    assert row("a", "s", 1, 4, 4, ">= 3").met is True and row("a", "s", 1, 2, 2, ">= 3").met is False
    assert row("a", "s", 1, 1, 1.1, "<= 1.15").met is True and row("a", "s", 1, None, None).met is None
    calls = []
    assert len(alternate(lambda: calls.append("ours"), lambda: calls.append("peer"), repeats=2)) == 2
    assert calls == ["ours", "peer"] * 2
    before = resident()
    reset()
    held = torch.ones(400 * 2**20 // 4)  # more than the allocator may have kept of what was freed before
    assert peak() - before > 300 and held.sum() > 0


def test_line_and_plot(tmp_path):
    assert line((1, 2, 3), [3.0, 5.0, 7.0]) == pytest.approx((2, 1, 1))
    picture = plot(
        {"noisy_latents": ((1, 2, 3), [3.0, 5.0, 7.0]), "processes": ((1, 2), [4.0, 2.0])}, tmp_path / "a" / "p.png"
    )
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_shape_of_stable_diffusion():
    """The published numbers of SD 1.x, without allocating its memory."""
    with torch.device("meta"):
        unet = sd14_unet()
    sites = find_sites(unet)
    assert sum(p.numel() for p in unet.parameters()) == 859_520_964
    assert (make_granularity("head").on(sites).n, make_granularity("neuron").on(sites).n) == (256, 49_920)
    assert "sd14_shape" in MODELS


def test_autoencoders(tmp_path, capsys):
    """With the peers that are installed; how to install the others is said."""
    assert benchmarks.main(["--quick", "--only", "sae", "--out", str(tmp_path)]) == 0
    (path,) = tmp_path.glob("*-mini.json")
    found = json.loads(path.read_text())["rows"]["sae"]
    assert [each["unit"] for each in found] == ["", "tokens/s", "tokens/s"] * 2
    assert all(0 < each["ours"] < 1 for each in found[::3]) and all(each["ours"] > 1 for each in found[1:3])
    for library, each in zip(("sparsify", "dictionary_learning"), found[1:3], strict=True):
        assert (each["peer"] is None) == bool(missing(library)) and each["notes"] == missing(library)


def test_everyone_gets_the_same_tokens():
    """Centred and scaled, in the order in which ours sees them; nothing of a trajectory is on two sides."""
    tokens = torch.arange(60.0).repeat_interleave(100)[:, None].expand(-1, 4).reshape(60, 100, 4) + torch.rand(
        60, 100, 4
    )
    data = Data(tokens)
    assert (len(data.validation), len(data.test), sum(map(len, data.parts))) == (6, 12, 4200)
    first, again = next(data.scaled(3)), next(data.stream(3).batches())
    torch.testing.assert_close(first * data.moments.scale + data.moments.mean.float(), again)
    learned = torch.cat([part.tokens for part in data.parts])
    assert learned.max() < data.validation.min() and data.validation.max() < data.test.min()


def test_pairs_by_ablation_are_second_differences(tiny_model):
    """What the peer of the interactions computes is what one pair's four evaluations of J give."""
    latents = sample_trajectory(tiny_model, "church", "", seeds=[0], steps=2)
    space = make_granularity("layer").on(find_sites(tiny_model.denoiser))
    game = Game(make_objective("erase", tiny_model, latents, 4), space)
    found = second_differences(game, game.values(ablations(space)))
    one, other = torch.triu_indices(space.n, space.n, 1)
    for number in (0, len(found) // 2, len(found) - 1):
        expected = second_difference(game, int(one[number]), int(other[number]))
        assert found[number].item() == pytest.approx(expected, rel=1e-4, abs=1e-7)


@pytest.mark.slow
def test_interactions_and_gates_of_stable_diffusion_in_size():
    """49,920 neurons, on random weights: nothing is kept that grows with their pairs (20 GB would be)."""
    model = DiffusionModel(sd14_shape(), "sd14_shape", resolution=64)
    space = make_granularity("neuron").on(find_sites(model.denoiser))
    assert space.n == 49_920
    latents, kept = (sample_trajectory(model, prompt, "", [0], steps=2) for prompt in ("a church", "a golf ball"))
    before = resident()
    reset()
    found = second_order(Game(make_objective("erase", model, latents, batch_size=1), space), seed=0)
    assert found.pairs is None and found.sketch is not None
    values = found.predict(1 - torch.rand(3, space.n).lt(0.05).float())
    gates = Joint.gates(Task(model, space, [latents], [kept], batch_size=1), 1.0, steps=2, batch=1)
    assert values.isfinite().all() and gates.isfinite().all() and gates.ne(1).any()
    assert peak() - before < 8 * 1024  # MiB; the weights alone are 3,300
