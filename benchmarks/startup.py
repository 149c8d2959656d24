"""Row 7: how long the command line takes to answer, and a run whose every stage is cached."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from benchmarks.measure import Bench, Row, row, seconds
from cad_exp.utils.errors import UserError

SMALL = (
    "model.steps=4",
    "noisy_latents.steps=4",
    "noisy_latents.samples=1",
    "evaluation.samples=4",
    "tracking=disabled",
)


def rows(bench: Bench) -> Iterator[Row]:
    """`--help`, and the same small run a first and a second time, in another folder but with the same cache."""
    help_time = median(seconds(lambda: command("--help")) for _ in range(bench.repeats))
    yield row("python -m cad_exp --help", "s", help_time, None, help_time, "<= 5", "a fresh process")
    with tempfile.TemporaryDirectory() as folder:
        settings = (*SMALL, "evaluation=erasure", f"runtime.cache={folder}/cache")
        first = seconds(lambda: command(*settings, f"hydra.run.dir={folder}/first"))
        second = seconds(lambda: command(*settings, f"hydra.run.dir={folder}/second"))
    note = "a fresh process; ours: the second run, peer: the first; the target is in seconds"
    yield row("a fully cached run", "s", second, first, second, "<= 15", note)


def command(*arguments: str) -> None:
    """Run the command line in a process of its own. UserError if it fails."""
    done = subprocess.run(
        [sys.executable, "-m", "cad_exp", *arguments], capture_output=True, text=True, cwd=Path(__file__).parents[1]
    )
    if done.returncode:
        said = " ".join((done.stderr + done.stdout).split())[-300:]
        raise UserError(f"'python -m cad_exp {' '.join(arguments)}' failed: {said}")
