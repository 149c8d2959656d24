"""Scores kept per timestep: when in the denoising, and where in the network, is the concept made?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
from torch import Tensor

from cad_exp.attribution.attribute import Attribution, estimates
from cad_exp.attribution.estimators.base import Estimator, Watch
from cad_exp.attribution.objectives.build import Objective
from cad_exp.data.noisy_latents import NoisyLatents
from cad_exp.interventions.spaces import ComponentSpace
from cad_exp.utils.errors import UserError

COLUMNS = ["t_high", "t_low", "n_latents", "module", "block", "kind", "component", "score"]


def bins_of(timesteps: Tensor, bins: int) -> list[Tensor]:
    """Return the distinct timesteps, noisiest first, in `bins` runs of equal length (they differ by one at most).

    Raises UserError unless 1 <= bins <= number of distinct timesteps.
    """
    distinct = timesteps.unique().flip(0)
    if isinstance(bins, bool) or not isinstance(bins, int) or not 1 <= bins <= len(distinct):
        raise UserError(
            f"evaluation.timesteps={bins} is out of range: the noisy latents have {len(distinct)} timesteps, so "
            f"use 1 to {len(distinct)}, or null"
        )
    return list(distinct.tensor_split(bins))


def within(latents: NoisyLatents, low: int, high: int) -> NoisyLatents:
    """Return the noisy latents at timesteps in low..high, both included, in their order."""
    return latents[((latents.t >= low) & (latents.t <= high)).nonzero()[:, 0]]


def by_timestep(
    objective_of: Callable[[NoisyLatents], Objective],
    estimator: Estimator,
    latents: NoisyLatents,
    space: ComponentSpace,
    bins: int,
    progress: Callable[[int, int], None] | None = None,
    checkpoint: Path | None = None,
) -> pd.DataFrame:
    """Score the noisy latents of each bin of timesteps: a row per bin and component (of weights: summed by matrix).

    Columns: t_high, t_low (the bin's ends, included), n_latents, module, block, kind, component, score; the noisiest
    bin first. J is a mean over noisy latents, so the mean over bins, weighted by n_latents, of a first-order score is
    the score at all noisy latents; of leave-one-out and of integrated gradients as well, but not of scores that are
    chosen by all noisy latents at once (magnitudes, regularised regression). progress counts evaluations of noisy
    latents; each bin has a `checkpoint_of` its own. UserError for bins that do not fit.
    """
    tables, done = [], 0
    for number, timesteps in enumerate(bins_of(latents.t, bins)):
        high, low = int(timesteps[0]), int(timesteps[-1])
        own = within(latents, low, high)
        part = _part(progress, done, len(own), len(latents)) if progress else None
        watch = Watch(part, checkpoint and checkpoint_of(checkpoint, number))
        scores = estimates(objective_of(own), estimator, [space], space.all_sites, watch)[space.name]
        table = Attribution({space.name: scores.values}, {space.name: space}).tables[space.name]
        tables.append(table.assign(t_high=high, t_low=low, n_latents=len(own))[COLUMNS])
        done += len(own)
    return pd.concat(tables, ignore_index=True)


def checkpoint_of(path: Path, number: int) -> Path:
    """Return where the estimate of one bin keeps what it has finished."""
    return path.with_suffix(f".{number}{path.suffix}")


def _part(progress: Callable[[int, int], None], before: int, size: int, total: int) -> Callable[[int, int], None]:
    """Return an estimator's progress at `size` noisy latents as progress of the whole."""
    return lambda done, of: progress(before + size * done // of, total)
