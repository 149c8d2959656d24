"""Numbers with intervals, computed from per-image records. Pure functions of arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

Interval = tuple[float, float, float]  # value, low, high


def _percentiles(value: float, resampled: np.ndarray) -> Interval:
    low, high = np.percentile(resampled, [2.5, 97.5])
    return float(value), float(low), float(high)


def mean_interval(values: Sequence[float], resamples: int = 1000, seed: int = 0) -> Interval:
    """Mean with a 95 % percentile bootstrap interval over the values."""
    x = np.asarray(values, dtype=np.float64)
    index = np.random.default_rng(seed).integers(0, len(x), (resamples, len(x)))
    return _percentiles(x.mean(), x[index].mean(1))


def grouped_interval(
    groups: Sequence[Sequence[float]], over: Callable[..., np.ndarray], resamples: int = 1000, seed: int = 0
) -> Interval:
    """`over` (np.mean, np.min) of the groups' means, with a 95 % bootstrap interval within each group."""
    rng = np.random.default_rng(seed)
    arrays = [np.asarray(g, dtype=np.float64) for g in groups]
    means = np.stack([g[rng.integers(0, len(g), (resamples, len(g)))].mean(1) for g in arrays])
    return _percentiles(float(over(np.array([g.mean() for g in arrays]))), over(means, axis=0))


class _Given(torch.nn.Module):
    """Hands precomputed features (N, F) to torchmetrics' FID in the place of a network."""

    def __init__(self, width: int):
        super().__init__()
        self.num_features = width

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features


def frechet_distance(real: np.ndarray, fake: np.ndarray) -> float:
    """Frechet distance of two sets of features (N, F), by torchmetrics in double precision (arXiv 1706.08500)."""
    from torchmetrics.image.fid import FrechetInceptionDistance

    # sync_on_compute: every process already holds all images; adding them up again would count them twice.
    metric = FrechetInceptionDistance(feature=_Given(real.shape[1]), sync_on_compute=False).set_dtype(torch.float64)
    metric.update(torch.from_numpy(real).double(), real=True)
    metric.update(torch.from_numpy(fake).double(), real=False)
    return float(metric.compute())


def frechet_interval(real: np.ndarray, fake: np.ndarray, resamples: int = 50, seed: int = 0) -> Interval:
    """Frechet distance with a bootstrap interval over the fake images.

    Resampling with replacement itself raises the distance (fewer distinct images), so the resampled spread is centred
    on the value instead of read off as percentiles.
    """
    value, rng = frechet_distance(real, fake), np.random.default_rng(seed)
    drawn = np.array([frechet_distance(real, fake[rng.integers(0, len(fake), len(fake))]) for _ in range(resamples)])
    _, low, high = _percentiles(value, drawn - drawn.mean() + value)
    return value, max(0.0, low), high
