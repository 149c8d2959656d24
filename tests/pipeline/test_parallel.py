"""Several processes of one run on the CPU: the same results as one, and no hang when one dies."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from cad_exp.utils import distributed
from tests import warm
from tests.cli.test_cli import ROOT
from tests.pipeline.test_experiment import FAST, FIDELITY

SMALL = ["concept=church", "granularity=neuron", *FAST, "runtime.threads=1", "evaluation.batch_size=3"]


def given(folder: Path, processes: int, *overrides: str) -> tuple[list[str], dict[str, Any]]:
    """The command's arguments, and how it is started."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": "1"}
    folder.mkdir(exist_ok=True, parents=True)
    how = {"cwd": folder, "env": environment, "start_new_session": True}
    how |= {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    studied = any(item.startswith("evaluation.fidelity.") for item in overrides)
    small = [item for item in SMALL if "fidelity" not in item or not studied]
    return [*small, f"hydra.run.dir=run{processes}", *overrides], how


def launched(folder: Path, *overrides: str) -> subprocess.Popen:
    """Two processes, started by torchrun."""
    arguments, how = given(folder, 2, *overrides)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "cad_exp"]
    return subprocess.Popen([sys.executable, *launcher, *arguments], **how)


def started(folder: Path, processes: int, *overrides: str) -> list[subprocess.Popen]:
    """So many processes at once, with what torchrun tells each of them: they need no new interpreters."""
    arguments, how = given(folder, processes, *overrides)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    shared = {"MASTER_ADDR": "localhost", "MASTER_PORT": f"{port}"}
    shared |= {"WORLD_SIZE": f"{processes}", "LOCAL_WORLD_SIZE": f"{processes}"}
    ranks = [shared | {"RANK": f"{rank}", "LOCAL_RANK": f"{rank}"} for rank in range(processes)]
    told = ranks if processes > 1 else [{}]
    return [warm.start(arguments, "torch", pictures=False, **(how | {"env": how["env"] | each})) for each in told]


def finish(process: subprocess.Popen, seconds: float = 200) -> str:
    try:
        said, _ = process.communicate(timeout=seconds)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    return said


def finish_all(processes: list[subprocess.Popen], seconds: float = 200) -> str:
    """What all said; the others' streams are small enough to wait in their pipes."""
    return "".join([finish(process, seconds) for process in processes])


@pytest.mark.parametrize(
    "overrides",
    [
        [
            "noisy_latents.batch_size=1",
            "runtime.batch_size=3",
            "estimator.patterns=4",
            "evaluation=erasure",
        ],  # uneven: batches of 3, 3 and 2 noisy latents
        [
            "noisy_latents.samples=1",
            "objective=projection",
            "estimator.patterns=4",
            "evaluation=none",
        ],  # empty: one trajectory, one batch
        pytest.param(["noisy_latents.batch_size=1", "runtime.batch_size=3"], marks=pytest.mark.slow),
    ],
    ids=["uneven", "empty", "all metrics"],
)
def test_two_processes_give_what_one_gives(tmp_path: Path, overrides: list[str]):
    for processes in (1, 2):
        ranks = started(tmp_path, processes, *overrides, f"runtime.cache=cache{processes}")
        said = finish_all(ranks)
        assert [rank.returncode for rank in ranks] == [0] * processes, said
    one, two = tmp_path / "run1", tmp_path / "run2"
    first, second = (load_file(folder / "attribution.safetensors") for folder in (one, two))
    for name, scores in first.items():
        torch.testing.assert_close(second[name], scores, rtol=1e-6, atol=1e-6 * float(scores.abs().max()))
    results = [json.loads((folder / "results.json").read_text()) for folder in (one, two)]
    assert results[0]["metrics"] == results[1]["metrics"]
    assert [content["run"]["processes"] for content in results] == [1, 2]
    pictures = sorted(path.relative_to(one) for path in one.glob("images/**/*.png"))
    assert bool(pictures) == ("evaluation=none" not in overrides)
    assert all((one / name).read_bytes() == (two / name).read_bytes() for name in pictures)


GATES = ["edit=joint", "edit.strength=9", "edit.steps=4", "edit.batch=3", "edit.trajectories=1", "edit.landing=2"]
GATES += ["edit.retain=[golf ball,tench]", "evaluation.metrics=[]", *FIDELITY, "evaluation.fidelity.second_order=3"]


@pytest.mark.parametrize("objective", ["projection", "erase"])
def test_two_processes_find_the_gates_and_interactions_of_one(objective: str, tmp_path: Path):
    """They share the noisy latents of every step, and the rows of the sketch (of `erase`): the last bits differ."""
    found = []
    for processes in (1, 2):
        asked = [*GATES, f"objective={objective}", f"runtime.cache=cache{processes}"]
        ranks = started(tmp_path, processes, *asked)
        said = finish_all(ranks)
        assert [rank.returncode for rank in ranks] == [0] * processes, said
        folder = tmp_path / f"run{processes}"
        metrics = json.loads((folder / "results.json").read_text())["metrics"]
        told = {each["name"]: each["value"] for each in metrics if each["name"].startswith("second_order")}
        found.append((load_file(folder / "edit.safetensors"), told))
    (one, first), (two, second) = found
    assert first and first == pytest.approx(second, rel=1e-3, abs=1e-3)
    assert set(one) == set(two)
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-3, atol=1e-3)


TASKS = {
    "probe": ["task=probe", "images.number=150", "activations.timesteps=[1]", "activations.hookpoints=[embedding]"],
    "sae": ["task=sae", "images.number=60", "tokens=noised", "tokens.timesteps=[1]", "sae.tokens=2048", "sae.width=32"],
}
TASKS["analyse"] = ["task=analyse", "images.number=110", "activations.timesteps=[1]", "analysis.leave_out=[]"]
TASKS["analyse"] += ["analysis.label=nudity"]
TASKS["sae"] += ["sae.seeds=1", "sae.k=4", "sae.batch_size=64"]


@pytest.mark.parametrize("task", TASKS)
def test_two_processes_read_what_one_reads(task: str, tmp_path: Path):
    """A stage that one process makes needs others on the way, for which the other process does not wait."""
    found = []
    for processes in (1, 2):
        ranks = started(tmp_path, processes, *TASKS[task], f"runtime.cache=cache{processes}")
        said = finish_all(ranks, 60)
        assert [rank.returncode for rank in ranks] == [0] * processes, said
        found.append(json.loads((tmp_path / f"run{processes}" / "results.json").read_text())["metrics"])
    assert found[0] == found[1]


def test_a_dead_process_ends_the_run(tmp_path: Path):
    run = launched(tmp_path, "noisy_latents.samples=64", "noisy_latents.steps=50", "evaluation=none")  # minutes of work
    while not (tmp_path / "outputs" / "cache").exists():
        assert run.poll() is None
        time.sleep(0.2)
    ranks = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            variables = (entry / "environ").read_bytes().split(b"\0")
            if os.getpgid(int(entry.name)) and f"{tmp_path}".encode() == os.readlink(entry / "cwd").encode():
                ranks |= {v[5:].decode(): int(entry.name) for v in variables if v.startswith(b"RANK=")}
        except OSError:
            continue
    os.kill(ranks["1"], signal.SIGKILL)
    begun = time.monotonic()
    finish(run, 60)
    assert run.returncode != 0 and time.monotonic() - begun < 60


def test_an_error_is_told_once(tmp_path: Path):
    run = launched(tmp_path, "noisy_latents.images=nowhere", "objective=amplify")  # which stops the other process
    said = finish(run, 60)
    assert run.returncode != 0 and said.count("there is no folder of images 'nowhere'") == 1


def test_shares_cover_a_list_without_overlap(monkeypatch):
    for size in (1, 2, 3, 7):
        monkeypatch.setenv("WORLD_SIZE", str(size))
        shares = []
        for rank in range(size):
            monkeypatch.setenv("RANK", str(rank))
            shares += distributed.share(list(range(5)))
        assert sorted(shares) == list(range(5))


def test_one_process_needs_no_connection(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    tensor = torch.ones(2)
    with distributed.together():
        distributed.add_up([tensor])
        distributed.barrier()
        assert distributed.agree("x") == "x" and distributed.main() and torch.equal(tensor, torch.ones(2))


def test_sums_travel_over_the_gpus_though_tensors_lie_on_the_cpu(monkeypatch: pytest.MonkeyPatch):
    """NCCL sends nothing from a CPU; gloo does."""
    asked: list[str] = []
    monkeypatch.setattr(distributed, "size", lambda: 2)
    monkeypatch.setattr(distributed, "local_device", lambda kind: asked.append(kind) or "cpu")
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda flat: flat.mul_(2))
    for backend, moved in (("gloo", []), ("nccl", ["cuda"])):
        monkeypatch.setattr(torch.distributed, "get_backend", lambda name=backend: name)
        tensors = [torch.tensor([1.0, 2.0]), torch.tensor([[3.0]]), torch.tensor([4])]
        distributed.add_up(tensors[:2])
        assert [each.tolist() for each in tensors] == [[2, 4], [[6]], [4]] and asked == moved
