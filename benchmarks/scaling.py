"""Row 6: time against the number of noisy latents, concepts, images and processes, with a line through each."""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from benchmarks.attribution import PROMPT, ours
from benchmarks.images import PROMPTS
from benchmarks.measure import Bench, Row, row, seconds
from cad_exp import DiffusionModel, attribute, sample_trajectory
from cad_exp.data.noisy_latents import look, walk

# What makes a run short; the work must be enough that starting Python is not all of it.
FAST = ("evaluation=none", "tracking=disabled", "model.steps=4", "noisy_latents.steps=25", "noisy_latents.samples=8")


def rows(bench: Bench) -> Iterator[Row]:
    """One row per quantity: seconds per unit (slope), R^2 of the line; the picture is beside the table."""
    model = bench.load()
    curves = {
        "noisy_latents": _latents(model, bench),
        "concepts": _concepts(model, bench),
        "images": _images(model, bench),
    }
    curves = {name: _measure(work, sizes, bench.repeats) for name, (work, sizes) in curves.items()}
    for name, (sizes, times) in curves.items():
        slope, fixed, r2 = line(sizes, times)
        note = f"{fixed:.2f} s + {slope:.4f} s each, {sizes[0]} to {sizes[-1]} {name}"
        yield row(f"time against {name}: R^2 of a line", "s each", slope, None, r2, ">= 0.98", note)
    yield _sharing(model, bench)
    counts = (1,) if bench.quick else tuple(n for n in (1, 2, 4) if n <= (os.cpu_count() or 1))
    times, why = _processes(counts)
    if why:
        yield row("time against processes", "s", None, None, None, notes=f"skipped: {why}")
    else:
        curves["processes"] = counts, times
        note = ", ".join(f"{n}: {t:.1f} s" for n, t in zip(counts, times, strict=True)) + "; start-up included"
        yield row("time against processes", "s", times[-1], times[0], times[0] / times[-1], notes=note)
    plot(curves, bench.folder / f"{device_slug()}-{bench.model}.png")


def _latents(model: DiffusionModel, bench: Bench) -> tuple[Callable[[int], object], tuple[int, ...]]:
    latents = sample_trajectory(model, PROMPT, "", seeds=range(4), steps=bench.size(64, 2))
    sizes = (2, 4, 8) if bench.quick else (32, 64, 128, 192, 256)
    return lambda n: attribute(model, latents[:n], "erase"), sizes


def _concepts(model: DiffusionModel, bench: Bench) -> tuple[Callable[[int], object], tuple[int, ...]]:
    steps = bench.size(20, 2)
    return lambda n: [ours(model, 16, steps) for _ in range(n)], (1, 2, 3) if bench.quick else (1, 2, 4, 6)


def _sharing(model: DiffusionModel, bench: Bench) -> Row:
    """Attributions of several concepts along one unguided walk, against guided trajectories for each."""
    prompts, steps = ("church", "tench", "golf ball", "parachute", "gas pump", "chain saw"), bench.size(20, 2)

    def shared() -> None:
        walked = walk(model, "", range(2), steps)
        for prompt in prompts:
            attribute(model, look(model, walked, prompt), "erase")

    def apart() -> None:
        for prompt in prompts:
            attribute(model, sample_trajectory(model, prompt, "", range(2), steps), "erase")

    times = [(seconds(shared), seconds(apart)) for _ in range(bench.repeats)]
    ours, peer = (statistics.median(column) for column in zip(*times, strict=True))
    note = (
        f"{len(prompts)} concepts, guidance 0: the unconditional passes are made once; {2 * steps} noisy latents each"
    )
    return row("concepts that share a walk", "s", ours, peer, peer / ours, notes=note)


def _images(model: DiffusionModel, bench: Bench) -> tuple[Callable[[int], object], tuple[int, ...]]:
    steps = bench.size(model.steps, 1)
    sizes = (1, 2, 3) if bench.quick else (8, 16, 32, 48, 64)
    return lambda n: model.generate(PROMPTS[:1] * n, range(n), steps, batch_size=8), sizes


def _measure(
    work: Callable[[int], object], sizes: tuple[int, ...], repeats: int
) -> tuple[tuple[int, ...], list[float]]:
    """Median seconds of every size, all sizes in turn in each repeat."""
    work(sizes[0])
    times = [[seconds(lambda n=n: work(n)) for n in sizes] for _ in range(repeats)]
    return sizes, [statistics.median(column) for column in zip(*times, strict=True)]


def line(x: tuple[int, ...], y: list[float]) -> tuple[float, float, float]:
    """Slope, intercept and R^2 of the least-squares line."""
    slope, fixed = np.polyfit(x, y, 1)
    left = np.square(np.asarray(y) - slope * np.asarray(x) - fixed).sum()
    return float(slope), float(fixed), float(1 - left / np.square(np.asarray(y) - np.mean(y)).sum())


def _processes(counts: tuple[int, ...]) -> tuple[list[float], str]:
    """Seconds of the same fresh run by each number of processes, one thread each; or why that does not work here."""
    times = []
    for count in counts:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", str(count)]
            command += ["-m", "cad_exp", *FAST, f"runtime.cache={folder}/cache", f"hydra.run.dir={folder}/run"]
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            start = time.perf_counter()
            try:
                done = subprocess.run(
                    command,
                    capture_output=True,
                    text=True,
                    timeout=600,
                    env=environment,
                    cwd=Path(__file__).parents[1],
                )
            except subprocess.TimeoutExpired:
                return [], f"{count} processes took more than ten minutes"
            if done.returncode:
                return [], f"{count} processes failed: {' '.join((done.stderr or done.stdout).split())[-160:]}"
            times.append(time.perf_counter() - start)
    return times, ""


def plot(curves: dict[str, tuple[tuple[int, ...], list[float]]], path: Path) -> Path:
    """One panel per curve: measured points, and the line."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(curves), figsize=(3.4 * len(curves), 3.2), constrained_layout=True)
    for axis, (name, (x, y)) in zip(np.atleast_1d(axes), curves.items(), strict=True):
        axis.plot(x, y, "o", color="#1f77b4")
        title = f"{name}"
        if len(x) > 2:
            slope, fixed, r2 = line(x, y)
            ends = np.array([0, max(x)])
            axis.plot(ends, slope * ends + fixed, "-", color="#999999", zorder=0)
            title += f": {slope:.3g} s each, $R^2$ = {r2:.3f}"
        axis.set(
            title=title, xlabel=f"number of {name}", ylabel="seconds", xlim=(0, 1.08 * max(x)), ylim=(0, 1.08 * max(y))
        )
        axis.title.set_fontsize(9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
    return path


def device_slug() -> str:
    """The device's name as part of a file name; `cpu` for any processor."""
    import torch

    name = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    return "-".join("".join(c if c.isalnum() else " " for c in name.lower()).split())
