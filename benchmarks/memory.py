"""Peak memory of one piece of work, in a process of its own: `python -m benchmarks.memory ours mini 50 4`."""

import ctypes
import gc
import json
import resource
import subprocess
import sys
from pathlib import Path

import torch

from cad_exp.utils.errors import UserError


def increase(work: str, model: str, steps: int = 50, batch: int = 1, seeds: int = 1) -> float:
    """Peak MiB above a loaded and warmed-up model; on CUDA the allocator's peak, else the resident set's.

    work: `public`, `ours` (trajectory and attribution), of `seeds` trajectories with `steps` noisy latents each.
    """
    arguments = [str(value) for value in (work, model, steps, batch, seeds)]
    command = [sys.executable, "-m", "benchmarks.memory", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    if done.returncode:
        raise UserError(f"'python -m benchmarks.memory {' '.join(arguments)}' failed: {done.stderr.strip()[-300:]}")
    return json.loads(done.stdout.splitlines()[-1])["MiB"]


def resident() -> float:
    """Resident MiB now (Linux), else the peak so far."""
    return _status("VmRSS") or _maximum()


def peak() -> float:
    """Largest resident MiB since `reset`."""
    return _status("VmHWM") or _maximum()


def reset() -> None:
    """Forget the peak of loading. Where the system cannot, the peak is of the whole process."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pass


def _status(key: str) -> float | None:
    # Linux's ru_maxrss starts at the size of the process that started this one, VmHWM at nothing.
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{key}:")), None)


def _maximum() -> float:
    unit = 1024**2 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def _give_back() -> None:
    """Hand freed memory back to the system, so that it does not hide what comes next."""
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError):
        pass  # only glibc keeps freed memory and has this call


def main(kind: str, name: str, steps: int, batch: int, seeds: int) -> float:
    """Do it here, and say how many MiB it took."""
    from benchmarks.models import load
    from benchmarks.public import public_attribution
    from cad_exp import attribute, sample_trajectory

    prompt, model = "a photo of a church", load(name)

    def work(steps: int, batch: int, seeds: int) -> None:
        if kind == "public":
            public_attribution(model, prompt, steps=steps)
        else:
            latents = sample_trajectory(model, prompt, "", seeds=range(seeds), steps=steps, batch_size=batch)
            attribute(model, latents, "erase", batch_size=batch)

    work(1, 1, 1)  # so that the code itself is in memory
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated() / 2**20
    else:
        _give_back()
        reset()
        before = resident()
    work(steps, batch, seeds)
    return (torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_available() else peak()) - before


if __name__ == "__main__":
    first, second, *numbers = sys.argv[1:]
    print(json.dumps({"MiB": main(first, second, *map(int, numbers))}))
