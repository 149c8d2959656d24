"""A run that is killed at any moment continues where it was and ends with the same bytes; two writers do no harm."""

import os
import random
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest

from tests import warm
from tests.cli.test_cli import ROOT
from tests.pipeline.test_experiment import FAST

COMMAND = ["concept=church", "granularity=head", *FAST]
FEW = ("evaluation=erasure", "evaluation.samples=2", "estimator.patterns=8")  # the slow tests make all
SAME = ("attribution.safetensors", "noisy_latents.safetensors", "edit.safetensors", "edit_random.safetensors")
SAME += ("components.parquet", "records.parquet")


def start(folder: Path, *overrides: str, pictures: bool = True) -> subprocess.Popen:
    folder.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_WAIT_POLICY": "PASSIVE"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return warm.start([*COMMAND, *overrides], "torch", pictures=pictures, cwd=folder, env=environment, **pipes)


def wait_for_work(process: subprocess.Popen) -> str:
    """The first line that a run says, or nothing: it is then loaded and at work."""
    return process.stdout.readline()


def the_run(folder: Path) -> Path:
    [found] = folder.glob("outputs/church-head-*")
    return found


def metrics(folder: Path) -> list:
    import json

    content = json.loads((folder / "results.json").read_text())
    assert content["run"]["complete"]
    return content["metrics"]


def same(first: Path, second: Path) -> None:
    assert metrics(first) == metrics(second)
    pictures = [
        sorted(path.relative_to(folder) for path in folder.glob("images/**/*.png")) for folder in (first, second)
    ]
    assert pictures[0] == pictures[1] and pictures[0]
    for name in (*SAME, *pictures[0]):
        assert (first / name).read_bytes() == (second / name).read_bytes(), name
    assert not [path for path in second.rglob(".*") if path.is_file()]


@pytest.fixture(scope="module")
def reference(tmp_path_factory) -> tuple[Path, float]:
    """An uninterrupted run, and the seconds that it worked."""
    return uninterrupted(tmp_path_factory.mktemp("reference"), *FEW)


def uninterrupted(folder: Path, *overrides: str) -> tuple[Path, float]:
    process = start(folder, *overrides)
    wait_for_work(process)
    begun = time.monotonic()
    process.communicate(timeout=300)
    assert process.returncode == 0
    return the_run(folder), time.monotonic() - begun


def kill_and_continue(folder: Path, reference: tuple[Path, float], kills: int, seed: int, *overrides: str) -> None:
    """Kill the same command at random moments; whenever it gets to its end before that, begin again from nothing."""
    expected, seconds = reference
    dice, done = random.Random(seed), 0
    while done < kills:
        process = start(folder, *overrides)
        wait_for_work(process)
        try:
            process.communicate(timeout=dice.uniform(0, seconds))
            assert process.returncode == 0
            same(expected, the_run(folder))
            shutil.rmtree(folder)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.communicate()
            done += 1
    process = start(folder, *overrides)
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said
    same(expected, the_run(folder))


def test_killed_and_continued(tmp_path: Path, reference):
    kill_and_continue(tmp_path / "runs", reference, 3, 0, *FEW)


@pytest.mark.slow
def test_killed_at_twenty_random_moments(tmp_path: Path):
    kill_and_continue(tmp_path / "runs", uninterrupted(tmp_path / "reference"), kills=20, seed=1)


def test_two_writers_of_one_run_and_of_one_cache(tmp_path: Path, reference):
    """Two processes with the same command, a third with an overlapping one, all at once on one folder."""
    said, others = [], [FEW, FEW, (*FEW, "edit.ratio=0.2")]

    def go(overrides: tuple[str, ...]) -> None:
        process = start(tmp_path, *overrides)
        text, _ = process.communicate(timeout=300)
        said.append((process.returncode, text))

    threads = [threading.Thread(target=go, args=(each,)) for each in others]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [code for code, _ in said] == [0, 0, 0], said
    assert sum("finished before" in text for _, text in said) == 1
    folders = sorted(tmp_path.glob("outputs/church-head-*"))
    assert len(folders) == 2
    [equal] = [folder for folder in folders if metrics(folder) == metrics(reference[0])]
    same(reference[0], equal)
    assert len(list((tmp_path / "outputs" / "cache" / "attribution").iterdir())) == 1  # computed once for all three


def test_a_sweep_is_continued_with_what_is_missing(tmp_path: Path):
    """One job of a sweep fails for want of a file; when the file is there, only this job runs."""
    sweep = ["-m", "edit=none", "evaluation=none", "estimator.patterns=4", "hydra.sweep.dir=sweep"]
    sweep += ["noisy_latents.images=null,pictures", "objective=projection"]
    process = start(tmp_path, *sweep, pictures=False)
    said, _ = process.communicate(timeout=200)
    assert process.returncode == 1
    end = said[said.index("1 of 2 jobs failed") :]
    assert (
        "there is no folder of images" in end
        and "python -m cad_exp concept=church" in end
        and "noisy_latents.images=pictures" in end
    )
    (tmp_path / "pictures").mkdir()
    from PIL import Image

    Image.new("RGB", (64, 64), (200, 30, 30)).save(tmp_path / "pictures" / "one.png")
    process = start(tmp_path, *sweep, pictures=False)
    said, _ = process.communicate(timeout=200)
    assert process.returncode == 0, said
    assert len(list(tmp_path.glob("sweep/*/results.json"))) == 2 and not list(tmp_path.glob("sweep/*/error.json"))
