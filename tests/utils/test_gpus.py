"""Several runs on one machine never share a GPU, and a killed run's GPU is free again."""

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from cad_exp.utils import gpu_lock

HOLD = "import sys, time, pathlib; from cad_exp.utils.gpu_lock import claim\n" + (
    "with claim(int(sys.argv[1]), pathlib.Path(sys.argv[2])) as gpu: print(gpu, flush=True); time.sleep(60)"
)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(gpu_lock, "PAUSE", 0.01)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def test_the_first_free_gpu(tmp_path: Path):
    with gpu_lock.claim(3, tmp_path) as first, gpu_lock.claim(3, tmp_path) as second:
        assert (first, second) == (0, 1)
    with gpu_lock.claim(3, tmp_path) as again:
        assert again == 0


def test_free_again_after_an_error(tmp_path: Path):
    with pytest.raises(ValueError), gpu_lock.claim(1, tmp_path):
        raise ValueError
    with gpu_lock.claim(1, tmp_path) as again:
        assert again == 0


def test_threads_never_share_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    taken, most, seen, guard = [], [], set(), threading.Lock()

    def work():
        with gpu_lock.claim(2, tmp_path / "new") as gpu:
            with guard:
                taken.append(gpu)
                most.append(list(taken))
            time.sleep(0.05)
            with guard:
                taken.remove(gpu)
                seen.add(gpu)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert seen == {0, 1} and not taken and len(most) == 6
    assert all(len(set(now)) == len(now) for now in most) and max(map(len, most)) == 2
    assert "waiting for a GPU: all 2 are taken" in capsys.readouterr().out


def test_processes_never_share_one_and_a_killed_one_frees_its_own(tmp_path: Path):
    command = [sys.executable, "-c", HOLD, "2", str(tmp_path)]
    holders = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    try:
        held = {int(holder.stdout.readline()): holder for holder in holders if holder.stdout}
        assert set(held) == {0, 1}
        held[1].kill()
        held[1].wait(timeout=10)
        with gpu_lock.claim(2, tmp_path) as mine:
            assert mine == 1
    finally:
        for holder in holders:
            holder.kill()
            holder.communicate(timeout=10)


def test_two_halves_of_a_machine_do_not_meet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    with gpu_lock.claim(2, tmp_path) as mine:
        assert mine == 0
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
        with gpu_lock.claim(2, tmp_path) as other:
            assert other == 0
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
        with (
            gpu_lock.claim(4, tmp_path) as whole,
            gpu_lock.claim(4, tmp_path) as second,
            gpu_lock.claim(4, tmp_path) as third,
        ):
            assert (whole, second, third) == (0, 1, 3)
