"""What trades memory for time changes no number, and what the memory command predicts is what is really used."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from cad_exp.attribution import meta
from cad_exp.attribution.attribute import attribute
from cad_exp.attribution.objectives.build import make_objective
from cad_exp.cli import memory, memory_of_activations
from cad_exp.interventions.spaces import FF, Weight, find_sites, make_granularity
from cad_exp.models import activation_checkpointing, offload
from cad_exp.models.pipeline import DiffusionModel
from cad_exp.models.sources import check_reachable
from cad_exp.utils.errors import UserError
from tests.config.test_configs import composed
from tests.graphs import graph_of
from tests.placed import placed

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def model(tiny_folder):
    """A model of one's own, to be switched."""
    return DiffusionModel.load(tiny_folder, device="cpu", name="tiny", steps=4)


def saved_bytes(objective, gates) -> int:
    """Bytes that autograd keeps for the backward pass, each tensor once, besides the model's own weights."""
    own = {x.data_ptr() for x in objective.model.denoiser.parameters()}
    found: dict[int, int] = {}

    def pack(x):
        if x.data_ptr() not in own:
            found[x.data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        objective.value_and_gradient(*placed(gates))
    return sum(found.values())


def gates_of(model, cut, level: float = 1.0) -> dict:
    return {site.module: torch.full(site.shape, level) for site in cut.sites(find_sites(model.denoiser))}


@pytest.mark.parametrize("ablation", ["zero", "mean", "resample"])
@pytest.mark.parametrize("name", ["erase", "projection"])
def test_checkpointing_gives_the_same_gradients(name, ablation, model, tiny_model, tiny_latents):
    activation_checkpointing.enable(model.denoiser)
    gates = gates_of(model, Weight(), 0.7)  # not intact: the recomputed blocks must see the gated weights as well
    plain, checked = (
        make_objective(name, each, tiny_latents, 5, ablation=ablation).value_and_gradient(*placed(gates))
        for each in (tiny_model, model)
    )
    assert checked[0] == pytest.approx(plain[0], rel=1e-6)
    for module, gradient in plain[1].items():
        assert torch.allclose(checked[1][module], gradient, rtol=1e-6, atol=1e-12), module
    assert any(gradient.abs().max() > 1e-7 for gradient in plain[1].values())


def test_checkpointing_keeps_less(model, tiny_model, tiny_latents):
    gates = gates_of(model, Weight())
    plain = saved_bytes(make_objective("erase", tiny_model, tiny_latents, 10), gates)
    activation_checkpointing.enable(model.denoiser)
    assert saved_bytes(make_objective("erase", model, tiny_latents, 10), gates) < 0.6 * plain


def test_checkpointing_leaves_samples_alone(model, tiny_model):
    activation_checkpointing.enable(model.denoiser)
    images = [each.generate(["church"], [0], steps=2) for each in (model, tiny_model)]
    assert (images[0] == images[1]).all()


def test_gradients_only_for_what_is_scored(tiny_model, tiny_latents):
    """The model's own weights get no gradient, gated copies of the asked modules do; fewer modules, less is kept."""
    objective = make_objective("erase", tiny_model, tiny_latents, 10)
    feed_forward = gates_of(tiny_model, make_granularity("neuron", [FF]))
    _, gradients = objective.value_and_gradient(*placed(feed_forward))
    assert gradients.keys() == feed_forward.keys()
    assert all(x.grad is None and not x.requires_grad for x in tiny_model.denoiser.parameters())
    assert saved_bytes(objective, feed_forward) < saved_bytes(objective, gates_of(tiny_model, Weight()))


def test_scoring_only_the_chosen_gives_the_same_scores(tiny_folder, tmp_path):
    few = [
        "noisy_latents.samples=1",
        "noisy_latents.steps=2",
        "evaluation=none",
        "tracking=disabled",
        "runtime.device=cpu",
    ]
    few += ["model=local", f"model.path={tiny_folder}", "estimator=first_order", "objective=erase", "granularity=head"]
    found = {}
    for score in ("all", "chosen"):
        runtime, graph, _ = graph_of(tmp_path, "concept=church", *few, f"runtime.score={score}")
        found[score] = runtime.get(graph.scores.scores)
    assert set(found["chosen"].scores) == {"head"} < set(found["all"].scores)
    kinds = composed(*few)["granularity"]["kinds"]
    whole = found["all"].narrow("head", kinds).scores["head"]
    assert torch.allclose(found["chosen"].narrow("head", kinds).scores["head"], whole, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("mode", ["model", "sequential"])
def test_offloading_changes_no_number(mode, model, tiny_model):
    """The mechanics, with the CPU in the role of the GPU; only a CUDA machine can test what is saved."""
    offload.place(model, torch.device("cpu"), mode)
    images = [each.generate(["church", "tench"], [0, 1], steps=2) for each in (model, tiny_model)]
    assert (images[0] == images[1]).all()
    assert torch.equal(model.decode(torch.ones(1, 4, 8, 8)), tiny_model.decode(torch.ones(1, 4, 8, 8)))
    at_rest = {x.device.type for encoder in offload.text_encoders(model.pipe) for x in encoder.parameters()}
    assert at_rest == {"cpu" if mode == "model" else "meta"}


def test_offloading_needs_cuda():
    with pytest.raises(UserError, match="needs a CUDA device, not cpu"):
        offload.check("model", torch.device("cpu"))
    with pytest.raises(UserError, match="did you mean 'sequential'"):
        offload.check("sequental", torch.device("cuda"))
    offload.check("none", torch.device("cpu"))
    offload.check("model", torch.device("cuda"))


@pytest.mark.parametrize("name", meta.names())
def test_the_configs_are_the_true_ones(name):
    """The published number of parameters comes out, and every config names where it is from."""
    facts = meta.describe(name)
    network = meta.denoiser(facts, "bf16")
    assert sum(x.numel() for x in network.parameters()) == facts["parameters"]
    assert facts["source"].startswith("https://huggingface.co/")
    assert {x.device.type for x in network.parameters()} == {"meta"}


def test_sd14_has_the_known_components():
    sites = find_sites(meta.denoiser(meta.describe("sd14"), "fp32"))
    counts = [make_granularity(name).on(sites).n for name in ("head", "neuron")]
    assert counts == [256, 49920] and len(make_granularity("neuron").sites(sites)) == 16


MEASURE = """
import sys, torch
from cad_exp.attribution import meta
from cad_exp.models.pipeline import DiffusionModel
torch.set_num_threads(1)
network, facts, batch = DiffusionModel.load("mini", device="cpu").denoiser, meta.describe("mini"), int(sys.argv[1])
scored = meta.scored(network, None)
def once(batch):
    args, kwargs = meta.inputs(network, facts, 8, batch, torch.device("cpu"), torch.float32)
    weights = {f"{n}.weight": network.get_submodule(n).weight.clone().requires_grad_() for n in scored}
    torch.func.functional_call(network, weights, args, kwargs)[0].square().mean().backward()
def status(name):
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(name))
once(1)
open("/proc/self/clear_refs", "w").write("5")  # the peak from now on, not that of loading
before = status("VmRSS")
once(batch)
print(status("VmHWM") - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_the_prediction_is_what_the_embedded_model_uses():
    """The process grows by 0.9 to 1.6 times the prediction: kernels on a CPU have workspaces and reordered copies."""
    batch = 96
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    answer = subprocess.run(
        [sys.executable, "-c", MEASURE, str(batch)], env=environment, capture_output=True, text=True, timeout=200
    )
    assert answer.returncode == 0, answer.stderr
    facts = meta.describe("mini")
    network = meta.denoiser(facts, "fp32")
    predicted = batch * meta.peak(network, facts, meta.scored(network, None), 8)
    assert 0.9 * predicted < int(answer.stdout.split()[-1]) < 1.6 * predicted


def test_memory_of_a_batch_is_that_of_its_noisy_latents():
    facts = meta.describe("mini")
    network = meta.denoiser(facts, "fp32")
    scored = meta.scored(network, None)
    one, eight = (meta.peak(network, facts, scored, 8, batch) for batch in (1, 8))
    assert eight == pytest.approx(8 * one, rel=1e-3)


def test_needs_add_up():
    settings = ["runtime.precision=bf16", "runtime.batch_size=4", "objective=projection"]
    plain = memory.need("mini", composed(*settings))
    once = memory.need("mini", composed(*settings[:2], "objective=erase"))
    assert plain.per_latent == 2 * once.per_latent and plain.gradients == 10 * plain.weights
    assert plain.total == plain.denoiser + plain.others + plain.gradients + 4 * plain.per_latent
    less = memory.need("mini", composed(*settings, "runtime.checkpointing=true", "runtime.score=chosen"))
    assert less.per_latent < plain.per_latent and less.weights < plain.weights
    there = memory.Need("x", 10 * memory.GIB, 8 * memory.GIB, 0, 2 * memory.GIB, memory.GIB, 1)
    assert there.fits(24) == 4 and there.fits(20) == 0
    there.offloaded = True
    assert there.fits(24) == 12 and there.total == 18 * memory.GIB and there.fits(17) == 0


def test_the_command(capsys, tiny_folder):
    assert memory.main(["model=mini", "granularity=head"]) == 0
    assert "mini" in capsys.readouterr().out
    assert memory.main(["model=local", f"model.path={tiny_folder}"]) == 0
    assert "local" in capsys.readouterr().out
    assert memory.main(["model=sdlx"]) == 2
    assert "did you mean 'sdxl'" in capsys.readouterr().err
    assert memory.main(["model=mini", "task=analyse"]) == 2
    assert "nothing tells what task=analyse takes: give task=attribute" in capsys.readouterr().err


@pytest.mark.parametrize(
    "config, said",
    [
        ('{"architectures": ["MyEncoder"]}', "the network 'MyEncoder' is of neither diffusers nor transformers"),
        ('{"architectures": 3', "cannot be read"),
        ('{"hidden_size": 3}', "does not say what network it describes"),
        (None, "has no text encoder"),
    ],
)
def test_a_folder_that_cannot_be_counted_is_told_in_a_sentence(config, said, tiny_folder, tmp_path, capsys):
    import shutil

    folder = Path(shutil.copytree(tiny_folder, tmp_path / "model"))
    file = folder / "text_encoder" / "config.json"
    file.unlink() if config is None else file.write_text(config)
    assert memory.main(["model=local", f"model.path={folder}"]) == 2
    assert said in capsys.readouterr().err


def test_activations_of_the_true_shapes():
    """SD1.5's first up stage with attention: 16 x 16 positions of 1,280 features, at 50 steps; 64 latents a side."""
    tokens = ["task=sae", "model=sd15", "images=folder", "images.path=x", "tokens.positions=all"]
    config = composed(*tokens, "images.number=100", "tokens.steps=50")
    found = memory_of_activations.size("sd15", config)
    one = 4 * 50 * 16 * 16 * 1280
    assert (found.places, found.disk, found.part, found.work) == (1, 100 * one, 50 * one, 3 * 50 * one)
    probes = composed("task=probe", "activations.hookpoints=[mid_block]", "activations.timesteps=[1,500]")
    sdxl = memory_of_activations.size("sdxl", probes)
    each = 4 * (1280 + 64 * 4)  # the noisy latent as a grid of 8 x 8
    assert (sdxl.places, sdxl.disk, sdxl.part) == (2, 600 * 2 * 2 * each, 100 * 2 * each)
    assert sdxl.work == 2 * 600 * 4 * 1280


def test_the_command_for_activations(capsys):
    assert memory.main(["task=sae", "model=mini,mini_dit", "tokens=noised", "images.number=200"]) == 0
    said = capsys.readouterr().out
    assert "activations of task=sae" in said and "mini_dit" in said
    assert memory.main(["task=probe", "model=mini", "activations.hookpoints=[mid_blok]"]) == 2
    assert "did you mean 'mid_block'" in capsys.readouterr().err
    assert memory.main(["task=sae", "model=sd15", "images=folder", "images.path=x"]) == 2
    assert "give images.number=5000" in capsys.readouterr().err


def offline(folder: Path, proxy: str) -> dict:
    left_out = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "NO_PROXY", "no_proxy")
    environment = {name: value for name, value in os.environ.items() if name not in left_out}
    environment |= {name: proxy for name in ("HTTPS_PROXY", "HTTP_PROXY", "https_proxy", "http_proxy")}
    return environment | {"PYTHONPATH": str(ROOT), "HF_HOME": str(folder / "hub"), "OMP_WAIT_POLICY": "PASSIVE"}


def test_without_the_hub_a_run_stops_at_once(tmp_path):
    """One sentence, within seconds, and before any work."""
    command = [sys.executable, "-m", "cad_exp", "model=sd14", "concept=church", "tracking=disabled"]
    answer = subprocess.run(
        [*command, "runtime.device=cpu"],
        cwd=tmp_path,
        env=offline(tmp_path, "http://127.0.0.1:9"),
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert answer.returncode == 1 and answer.stderr.count("\n") == 1, answer.stderr
    assert "the Hugging Face hub cannot be reached" in answer.stderr and "model.path=FOLDER" in answer.stderr
    assert not list((tmp_path / "outputs" / "cache").glob("*/*/*"))


def test_a_hub_that_never_answers_is_given_up(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        code = "import time; from cad_exp.models.sources import *; start = time.time()\n"
        code += "try: check_reachable('CompVis/stable-diffusion-v1-4', None)\n"
        code += "except UserError as error: print(round(time.time() - start, 1), error)"
        proxy = f"http://127.0.0.1:{silent.getsockname()[1]}"
        answer = subprocess.run(
            [sys.executable, "-c", code], env=offline(tmp_path, proxy), capture_output=True, text=True, timeout=90
        )
    seconds, _, message = answer.stdout.partition(" ")
    assert float(seconds) < 12 and "cannot be reached" in message


def test_a_hub_model_that_is_forbidden_to_download(monkeypatch, tmp_path):
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "is_offline_mode", lambda: True)
    start = time.monotonic()
    with pytest.raises(UserError, match="HF_HUB_OFFLINE forbids"):
        check_reachable("nobody/nothing", None)
    assert time.monotonic() - start < 5


def test_a_local_model_needs_no_hub(tiny_folder, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    check_reachable(str(tiny_folder), None)
    check_reachable("mini", None)


def test_attribution_with_checkpointing_as_a_run_option(tiny_folder, tmp_path):
    """The switch reaches the model, and shares the cache with runs without it."""
    few = [
        "noisy_latents.samples=1",
        "noisy_latents.steps=2",
        "evaluation=none",
        "tracking=disabled",
        "runtime.device=cpu",
    ]
    few += ["model=local", f"model.path={tiny_folder}", "estimator=first_order", "objective=erase"]
    plain, checked = (
        graph_of(tmp_path / on, "concept=church", *few, f"runtime.checkpointing={on}") for on in ("false", "true")
    )
    scores = [runtime.get(graph.scores.scores).scores["weight"] for runtime, graph, _ in (plain, checked)]
    model = checked[0].get(checked[1].model)
    assert model.denoiser.is_gradient_checkpointing
    assert len({runtime.key(graph.scores) for runtime, graph, _ in (plain, checked)}) == 1
    assert torch.allclose(scores[0], scores[1], rtol=1e-6, atol=1e-10)
    direct = attribute(model, checked[0].get(checked[1].latents), "erase", granularities=["weight"], batch_size=64)
    assert torch.allclose(direct.scores["weight"], scores[0], rtol=1e-6, atol=1e-10)
