"""Check every run of a sweep, a plan or a search before the first one starts: as a single run is, one after the other.

So a combination that can never work is found within seconds, not after the hours of those before it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cad_exp.config import compose
from cad_exp.config.resolve import Resolved, resolve
from cad_exp.pipeline import preflight
from cad_exp.pipeline.preflight import Graph
from cad_exp.utils import progress
from cad_exp.utils.errors import UserError


@dataclass(frozen=True)
class Checked:
    """A run that a command asks for: what was typed for it, its config and graph, or why it cannot be run."""

    overrides: list[str]
    config: Resolved | None = None
    graph: Graph | None = None
    error: str = ""


def sweep(overrides: Sequence[str], folders: list[Path]) -> Iterator[Checked]:
    """Check each job that `-m` with these overrides would run, in order."""
    with compose.hydra(folders) as composer:
        jobs, _ = composer.sweep(list(overrides))
    return each(jobs, folders)


def each(runs: Sequence[list[str]], folders: list[Path]) -> Iterator[Checked]:
    """Check runs by their overrides, in order. Nothing is written, and torch is not loaded.

    folders: all that hold configs, the package's first.
    Raises UserError for overrides that Hydra cannot compose: with them its sweep would stop at that job.
    """
    with compose.hydra(folders) as composer, progress.progress(len(runs), "checking the jobs") as tick:
        for number, overrides in enumerate(runs):
            tick(number, len(runs))
            composed = composer.job(overrides)
            try:
                config = resolve(composed, folders[1:])
                yield Checked(overrides, config, preflight.graph_of(config))
            except UserError as error:
                yield Checked(overrides, error=str(error))


def told(refused: Sequence[Checked], jobs: int, most: int = 5) -> str:
    """Say which of so many jobs cannot be run, and why; one reason that they all have is said once."""
    if len({item.error for item in refused}) == 1 and len(refused) == jobs:
        return f"none of the {jobs} jobs can be run: {refused[0].error}" if jobs > 1 else refused[0].error
    lines = [f"  {' '.join(item.overrides)}: {item.error}" for item in refused[:most]]
    more = [f"  and {len(refused) - most} more"] if len(refused) > most else []
    return "\n".join([f"{len(refused)} of {jobs} jobs cannot be run:", *lines, *more])
