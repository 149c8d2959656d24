"""Hydra's launchers: their configs compose, and a real sweep of two jobs works on this machine (Slurm: slurm_check.sh).

A launcher whose plugin is not installed is skipped: `pip install -e '.[launchers]'` brings them all.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from hydra import compose, initialize_config_dir

from cad_exp.config.options import conf_folder, options

ROOT = Path(__file__).resolve().parents[2]
PLUGINS = {"workers": "joblib", "submitit": "submitit", "slurm": "submitit", "cluster": "ray"}
FAST = (
    "noisy_latents.samples=2 noisy_latents.steps=4 model.steps=4 evaluation=erasure evaluation.samples=4 "
    "evaluation.retention_samples=1 evaluation.reference_samples=2 tracking.mode=disabled"
).split()


def need(launcher: str) -> None:
    plugin = f"hydra_{PLUGINS[launcher]}_launcher"
    known = importlib.util.find_spec("hydra_plugins") and importlib.util.find_spec(f"hydra_plugins.{plugin}")
    if not known:
        pytest.skip(f"{plugin} is not installed")


def settings(launcher: str, *overrides: str) -> dict:
    need(launcher)
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        return compose("config", [f"hydra/launcher={launcher}", *overrides], return_hydra_config=True).hydra.launcher


def sweep(folder: Path, launcher: str, *overrides: str) -> subprocess.CompletedProcess:
    """A sweep over two concepts, in a process of its own; each job must have left its results."""
    need(launcher)
    # Ray would join a cluster that runs on this machine already; this test wants one that ends with it.
    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    environment |= {"PYTHONPATH": str(ROOT), "OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "cad_exp", "-m", f"hydra/launcher={launcher}", "hydra.sweep.dir=sweep"]
    command += ["concept=church,tench", *FAST, *overrides]
    answer = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=540)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    folders = sorted(file.parent.name for file in (folder / "sweep").glob("*/results.json"))
    assert len(folders) == 2 and "church" in " ".join(folders) and "tench" in " ".join(folders)
    return answer


def test_every_launcher_has_a_line_and_a_test():
    assert set(options("hydra/launcher", [conf_folder()])) == set(PLUGINS)
    assert all(options("hydra/launcher", [conf_folder()]).values())


def test_workers_composes():
    assert settings("workers", "hydra.launcher.n_jobs=8").n_jobs == 8


def test_submitit_shows_every_gpu():
    assert settings("submitit").gpus_per_node == 16 and "LocalLauncher" in settings("submitit")._target_


def test_slurm_asks_for_one_gpu_per_job():
    chosen = settings("slurm", "hydra.launcher.partition=short")
    assert chosen.gpus_per_node == 1 and chosen.tasks_per_node == 1 and chosen.partition == "short"


def test_cluster_takes_gpus_per_job():
    remote = settings("cluster", "hydra.launcher.ray.remote.num_gpus=1").ray.remote
    assert remote.num_gpus == 1 and remote.num_cpus == 1


@pytest.mark.slow
def test_workers_run_side_by_side(tmp_path: Path):
    sweep(tmp_path, "workers")


@pytest.mark.slow
def test_submitit_runs_every_job_with_a_log(tmp_path: Path):
    sweep(tmp_path, "submitit")
    logs = [log.read_text(encoding="utf-8") for log in (tmp_path / "sweep" / ".submitit").glob("*/*_log.out")]
    assert len(logs) == 2 and all("concept rate" in log for log in logs)


@pytest.mark.slow
def test_ray_runs_and_stops(tmp_path: Path):
    before = daemons()
    sweep(tmp_path, "cluster", "hydra.launcher.ray.init.address=local")
    assert daemons() <= before


def daemons() -> set[int]:
    """The processes of Ray that are alive on this machine."""
    living = psutil.process_iter(["name", "status"])
    return {one.pid for one in living if one.info["name"] == "raylet" and one.info["status"] != psutil.STATUS_ZOMBIE}
