"""What the memory command says of a whole run is what its parts really take, on the embedded models."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from cad_exp.attribution import meta, sizes
from cad_exp.attribution.gates.task import Task
from cad_exp.attribution.interactions.second_order import SKETCH_BYTES, extent
from cad_exp.attribution.interactions.sketch import Sketcher
from cad_exp.cli import memory, memory_of_run
from cad_exp.data.noisy_latents import NoisyLatents
from cad_exp.interventions.spaces import find_sites, make_granularity
from cad_exp.models.pipeline import DiffusionModel
from tests.config.test_configs import composed

ROOT = Path(__file__).resolve().parents[2]

SHRUNK = (512, 40_000)  # rows of a sketch, and components
MEASURE = """
import ctypes, gc, json, sys
import torch
from cad_exp.attribution.game import Game
from cad_exp.attribution.gates.joint import Joint
from cad_exp.attribution.gates.task import Task, edit_of
from cad_exp.attribution.interactions.quadratic import shrunk
from cad_exp.attribution.interactions.second_order import second_order
from cad_exp.attribution.objectives.build import make_objective
from cad_exp.data.noisy_latents import NoisyLatents
from cad_exp.interventions.selection import _drawn, _order
from cad_exp.interventions.spaces import FF, Site, find_sites, make_granularity
from cad_exp.models.pipeline import DiffusionModel

torch.set_num_threads(1)
model = DiffusionModel.load("mini", device="cpu")
sites = find_sites(model.denoiser)


def status(name):
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(name))


def grown(work):
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    open("/proc/self/clear_refs", "w").write("5")  # the peak from now on; getrusage has that of all the process
    before = status("VmRSS")
    kept = work()
    return status("VmHWM") - before, kept


def latents(rows, prompt="a photo of a church"):
    x, base, cond = (torch.randn(rows, 4, 8, 8) for _ in range(3))
    return NoisyLatents(x, torch.randint(1, 900, (rows,)), base, cond, None, prompt, "", {"seeds": []})


def joined(rows, prompt="a photo of a church"):
    parts = [latents(rows // 2, prompt) for _ in range(2)]
    return parts, NoisyLatents.join(parts)


neurons = make_granularity("neuron", ["cross-attention", "feed-forward", "self-attention"]).on(sites)
sketch = lambda rows: second_order(Game(make_objective("erase", model, latents(rows), 8), neurons))
found = {"components": neurons.n, "sketch": [grown(lambda rows=rows: sketch(rows))[0] for rows in (32, 512)]}

shrunk(torch.randn(8, 8))
found["shrunk"] = grown(lambda: shrunk(torch.randn(*json.loads(sys.argv[1]))))[0]

heads = make_granularity("head").on(sites)
tasks = lambda rows: (three := [joined(rows), joined(rows, "a dog"), joined(rows)]) and (
    three,
    Task(model, heads, [three[0][1]], [three[1][1]], 1.0, 1.0, landing=[three[2][1]]),
)
tasks(8)
found["task"] = grown(lambda: tasks(8_000))[0]

side = 250
weights = make_granularity("weight").on([Site(str(i), str(i), FF, (side, side)) for i in range(16)])


class Steps:  # a task without a model: what is left is the work on the gates
    space, groups = weights, torch.zeros(1, dtype=torch.long)

    def draws(self, steps, *_):
        yield from range(steps)

    def slopes(self, rows, gates, strength, balance):
        return 0.0, weights.join({name: torch.rand(side, side) for name in weights.split(gates)})


def random(edit):
    taken = torch.zeros(weights.n, dtype=torch.bool)
    taken[weights.components(edit)] = True
    own = weights.factors(edit)
    chosen = _drawn(taken, torch.zeros_like(weights.sizes()), weights.segments("global"), 0)
    return weights.intervention(chosen, own[_order(len(chosen), 0)])


trained, gates = grown(lambda: Joint.gates(Steps(), 1.0, steps=3))
edited, edit = grown(lambda: edit_of(weights, gates, 0.0, {}))
drawn, _ = grown(lambda: random(edit))
found |= {"weights": weights.n, "gates": [trained, edited, drawn]}
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def measured() -> dict:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    environment["MALLOC_MMAP_THRESHOLD_"] = "65536"  # what is freed goes back to the system at once
    answer = subprocess.run(
        [sys.executable, "-c", MEASURE, json.dumps(SHRUNK)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert answer.returncode == 0, answer.stderr
    return json.loads(answer.stdout.splitlines()[-1])


linux = pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
slow = pytest.mark.slow  # only large amounts stand out from what the libraries take and give back


@linux
@slow
def test_a_sketch_of_interactions_takes_what_is_said(measured):
    """What passes of the network leave behind is the same for both numbers of noisy latents."""
    few, many = (sizes.of_interactions(measured["components"], rows, 256, True) for rows in (32, 512))
    assert measured["sketch"][1] - measured["sketch"][0] == pytest.approx(many - few, rel=0.25)


@linux
@slow
def test_noisy_latents_and_targets_take_what_is_said(measured):
    rows = 8_000
    said = 3 * sizes.of_latents(rows, 256) + sizes.of_task(rows, True, 256)
    assert 0.9 * said < measured["task"] < 1.2 * said


@linux
@slow
def test_rows_of_a_sketch_are_shrunk_beside_one_copy_of_them(measured):
    rows, n = SHRUNK
    assert measured["shrunk"] == pytest.approx(2 * sizes.NUMBER * rows * n + sizes.INDEX * rows**2, rel=0.15)


@linux
@slow
def test_gates_of_single_weights_take_what_is_said(measured):
    trained, edited, drawn = (grown / measured["weights"] for grown in measured["gates"])
    assert trained == pytest.approx(24, rel=0.15) and edited == pytest.approx(52, rel=0.15)
    assert drawn == pytest.approx(sizes.FINDING, rel=0.15)


@pytest.mark.parametrize("name", ["mini", "mini_dit"])
def test_on_the_gpu_neither_takes_more_than_attribution(name):
    model, rows = DiffusionModel.load(name, device="cpu"), 4
    space = make_granularity("neuron").on(find_sites(model.denoiser))
    scored = meta.scored(model.denoiser, {"name": "neuron", "kinds": list(space.kinds)})
    weights = sum(model.denoiser.get_parameter(f"{module}.weight").numel() for module in scored)
    said = 8 * weights + meta.peak(model.denoiser, meta.describe(name), scored, 8, rows)
    x, base, cond = torch.randn(3, rows, 4, 8, 8)
    latents = NoisyLatents(x, torch.arange(1, rows + 1), base, cond, None, "a photo of a church", "")
    sketcher, condition = Sketcher(model, space, 1, 0, rows), model.encode([latents.prompt])
    task = Task(model, space, [latents], [latents], batch_size=rows)
    asked = torch.arange(rows), torch.arange(rows)
    for work in (
        lambda: sketcher._slopes(latents, condition, latents.x),
        lambda: task.slopes(asked, torch.ones(space.n), 1.0),
    ):
        live = meta.Live()
        live.ignore([*model.denoiser.parameters(), *model.denoiser.buffers()])
        with live:
            work()
        assert live.most < 1.02 * said


def test_the_graph_of_the_run_says_what_is_held():
    """By hand, for mini (256 numbers a noisy latent): 64 trajectories of 12 steps to score, as many to find gates."""
    latents = 24 * 256 * 64 * 12
    n, plain = memory_of_run.held(composed("edit=none", "evaluation=none", "objective=erase"), [])
    assert (n, plain) == (3520, sizes.Held(latents, 0, 0, 0))
    fixed = ["edit.strength=0.5", "edit.landing=0", "edit.trajectories=1", "evaluation=none", "concept=church"]
    _, joint = memory_of_run.held(composed(*fixed, "edit.retain=[a dog]", "noisy_latents.samples=1"), [])
    # scored, concept's, "a dog" and the base prompt if there is one
    kept = 2 if composed("concept=church")["concept"]["base_prompt"] else 1
    assert joint.latents == 24 * 256 * 12 * (2 + kept) + 8 * 256 * 12
    assert (joint.gates, joint.finding) == (16 * 3520, sizes.FINDING * 3520)
    _, style = memory_of_run.held(composed(*fixed[:-1], "concept=van_gogh", "edit.retain=[a dog,a cat]"), [])
    # scored, 32 of each pet in the style, one of each pet; targets of those in the style
    assert style.latents == 24 * 256 * 12 * (64 + 2 * 32 + 2) + 8 * 256 * 12 * 64
    _, six = memory_of_run.held(composed(), [])  # and one between two of them
    assert six.gates == 7 * 16 * 3520 and six.most == six.latents + six.gates + max(six.finding, six.interactions)
    _, without = memory_of_run.held(composed("evaluation.fidelity.second_order=null"), [])
    assert six.interactions > without.interactions == 0


def test_of_single_weights_gates_are_what_counts():
    n, held = memory_of_run.held(composed("granularity=weight", "edit.strength=1"), [])
    assert held.gates + held.finding == (16 + sizes.FINDING) * n
    assert held.interactions < sizes.of_interactions(n, 768, 256, True)  # no sketch of single weights


def test_components_that_only_files_know_and_edits_without_scores():
    assert memory_of_run.held(composed("granularity=latent", "edit=erase", "evaluation=none"), [])[0] is None
    assert memory_of_run.held(composed("edit=uce"), []) == (0, sizes.Held(0, 0, 0, 0))


@pytest.mark.parametrize("n, latents", [(3520, 768), (62_400, 768), (10**6, 768), (10**9, 768)])
def test_a_sketch_keeps_to_its_bound(n, latents):
    number, projections = extent(n, latents)
    assert 1 <= number <= latents and 1 <= projections <= 4
    assert 4 * n * number * projections <= max(SKETCH_BYTES, 4 * n)


def test_the_command_shows_both(capsys):
    assert memory.main(["model=mini", "granularity=head"]) == 0
    said = capsys.readouterr().out
    assert "GPU memory for attribution" in said and "memory of the machine itself" in said and "interactions" in said
