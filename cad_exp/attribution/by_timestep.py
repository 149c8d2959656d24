"""Scores kept per timestep: when in the denoising, and where in the network, is the concept made?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
from torch import Tensor

from cad_exp.attribution.attribute import Attribution, _estimates
from cad_exp.attribution.estimators.base import Estimator
from cad_exp.attribution.objectives.build import Objective
from cad_exp.data.noisy_latents import Probes
from cad_exp.interventions.spaces import Granularity, Site
from cad_exp.utils.errors import UserError

COLUMNS = ["t_high", "t_low", "n_probes", "module", "block", "kind", "component", "score"]


def bins_of(timesteps: Tensor, bins: int) -> list[Tensor]:
    """The distinct timesteps, from the noisiest on, in `bins` runs of equal length (they differ by one at most).

    Raises UserError unless 1 <= bins <= number of distinct timesteps.
    """
    distinct = timesteps.unique().flip(0)
    if isinstance(bins, bool) or not isinstance(bins, int) or not 1 <= bins <= len(distinct):
        raise UserError(
            f"evaluation.timesteps={bins} is out of range: the probes have {len(distinct)} timesteps, so use 1 to "
            f"{len(distinct)}, or null"
        )
    return list(distinct.tensor_split(bins))


def within(probes: Probes, low: int, high: int) -> Probes:
    """The probes at timesteps in low..high, both included, in their order."""
    return probes[((probes.t >= low) & (probes.t <= high)).nonzero()[:, 0]]


def by_timestep(
    objective_of: Callable[[Probes], Objective],
    estimator: Estimator,
    probes: Probes,
    cut: Granularity,
    sites: Sequence[Site],
    bins: int,
) -> pd.DataFrame:
    """Scores at the probes of each bin of timesteps: a row per bin and component (of weights: per matrix, their sum).

    Columns: t_high, t_low (the bin's ends, included), n_probes, module, block, kind, component, score; the noisiest bin
    first. J is a mean over probes, so the mean over bins, weighted by n_probes, of a first-order score is the score at
    all probes; of leave-one-out and of integrated gradients as well, but not of scores that are chosen by all probes at
    once (magnitudes, regularised regression). UserError for bins that do not fit.
    """
    tables, done, progress, checkpoint = [], 0, estimator.progress, estimator.checkpoint
    try:
        for number, timesteps in enumerate(bins_of(probes.t, bins)):
            high, low = int(timesteps[0]), int(timesteps[-1])
            own = within(probes, low, high)
            estimator.checkpoint = checkpoint and checkpoint_of(checkpoint, number)
            if progress:
                estimator.progress = _part(progress, done, len(own), len(probes))
            scores, _ = _estimates(objective_of(own), estimator, [cut], sites)
            table = Attribution({cut.name: scores[cut.name].values}, list(sites), {cut.name: cut}).tables[cut.name]
            tables.append(table.assign(t_high=high, t_low=low, n_probes=len(own))[COLUMNS])
            done += len(own)
    finally:
        estimator.progress, estimator.checkpoint = progress, checkpoint
    return pd.concat(tables, ignore_index=True)


def checkpoint_of(path: Path, number: int) -> Path:
    """Where the estimate of one bin keeps what it has finished."""
    return path.with_suffix(f".{number}{path.suffix}")


def _part(progress: Callable[[int, int], None], before: int, size: int, total: int) -> Callable[[int, int], None]:
    """An estimator's progress at `size` probes as progress of the whole."""
    return lambda done, of: progress(before + size * done // of, total)
