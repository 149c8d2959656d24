"""Several processes of one run on the CPU: the same results as one, and no hang when one dies."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from cad_exp.utils import distributed

from . import warm
from .test_cli import ROOT
from .test_experiment import FAST

SMALL = ["concept=church", "granularity=neuron", *FAST, "runtime.threads=1", "evaluation.batch_size=3"]


def start(folder: Path, processes: int, *overrides: str) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": "1"}
    given = [*SMALL, f"hydra.run.dir=run{processes}", *overrides]
    folder.mkdir(exist_ok=True, parents=True)
    how = {"cwd": folder, "env": environment, "start_new_session": True}
    how |= {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    if processes == 1:
        return warm.start(given, "torch", **how)
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}", "-m", "cad_exp"]
    return subprocess.Popen([sys.executable, *launcher, *given], **how)


def finish(process: subprocess.Popen, seconds: float = 200) -> str:
    try:
        said, _ = process.communicate(timeout=seconds)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    return said


@pytest.mark.parametrize(
    "overrides",
    [
        [
            "noisy_latents.batch_size=1",
            "runtime.batch_size=3",
            "evaluation=erasure",
        ],  # uneven: batches of 3, 3 and 2 noisy latents
        ["noisy_latents.samples=1", "objective=projection", "evaluation=none"],  # empty: one trajectory, one batch
        pytest.param(["noisy_latents.batch_size=1", "runtime.batch_size=3"], marks=pytest.mark.slow),
    ],
    ids=["uneven", "empty", "all metrics"],
)
def test_two_processes_give_what_one_gives(tmp_path: Path, overrides: list[str]):
    for processes in (1, 2):
        run = start(tmp_path, processes, *overrides, f"runtime.cache=cache{processes}")
        said = finish(run)
        assert run.returncode == 0, said
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


def test_a_dead_process_ends_the_run(tmp_path: Path):
    run = start(tmp_path, 2, "noisy_latents.samples=64", "noisy_latents.steps=50", "evaluation=none")  # minutes of work
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
    run = start(tmp_path, 2, "noisy_latents.images=nowhere", "objective=amplify")
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
