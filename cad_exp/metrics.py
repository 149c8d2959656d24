"""Numbers with intervals, computed from per-image records. Pure functions of arrays."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True)
class Statistics:
    """What FID needs of features: mean (F,) and unbiased covariance (F, F); of how many images, None if not known."""

    mean: np.ndarray
    covariance: np.ndarray
    number: int | None

    @classmethod
    def of(cls, features: np.ndarray) -> Statistics:
        """Of features (N, F), N at least 2."""
        x = np.asarray(features, dtype=np.float64)
        return cls(x.mean(0), np.cov(x, rowvar=False).reshape(x.shape[1], x.shape[1]), len(x))


def frechet_distance(real: np.ndarray | Statistics, fake: np.ndarray) -> float:
    """Frechet distance of features (N, F) to others, by torchmetrics in double precision (arXiv 1706.08500).

    real: features (M, F), or their statistics.
    """
    from torchmetrics.image.fid import FrechetInceptionDistance

    # sync_on_compute: every process already holds all images; adding them up again would count them twice.
    metric = FrechetInceptionDistance(feature=_Given(fake.shape[1]), sync_on_compute=False).set_dtype(torch.float64)
    if isinstance(real, Statistics):
        mean, n = torch.from_numpy(real.mean).double(), real.number or 2  # the number cancels out
        metric.real_features_sum += n * mean
        covariance = torch.from_numpy(real.covariance).double()
        metric.real_features_cov_sum += (n - 1) * covariance + n * torch.outer(mean, mean)
        metric.real_features_num_samples += n
    else:
        metric.update(torch.from_numpy(real).double(), real=True)
    metric.update(torch.from_numpy(fake).double(), real=False)
    return float(metric.compute())


def quick_frechet(real: Statistics, fake: np.ndarray) -> float:
    """As `frechet_distance`, for many resamples of fewer images than features.

    The n centred images X span the covariance X'X / (n - 1), so the trace of the root of C X'X / (n - 1) is that of the
    small symmetric matrix X C X' / (n - 1).
    """
    x = np.asarray(fake, dtype=np.float64)
    gap, x = x.mean(0) - real.mean, x - x.mean(0)
    if len(x) > x.shape[1]:
        x = np.linalg.qr(x, mode="r")
    size = len(fake) - 1
    roots = np.sqrt(np.linalg.eigvalsh(x @ real.covariance @ x.T / size).clip(0))
    return float(gap @ gap + np.trace(real.covariance) + (x * x).sum() / size - 2 * roots.sum())


def frechet_interval(real: np.ndarray | Statistics, fake: np.ndarray, resamples: int = 50, seed: int = 0) -> Interval:
    """Frechet distance with a bootstrap interval over the fake images.

    Resampling with replacement itself raises the distance (fewer distinct images), so the resampled spread is centred
    on the value instead of read off as percentiles.
    """
    value, rng = frechet_distance(real, fake), np.random.default_rng(seed)
    known = real if isinstance(real, Statistics) else Statistics.of(real)
    drawn = np.array([quick_frechet(known, fake[rng.integers(0, len(fake), len(fake))]) for _ in range(resamples)])
    _, low, high = _percentiles(value, drawn - drawn.mean() + value)
    return value, max(0.0, low), high


KID_SUBSET, KID_SUBSETS, KID_MOST = 1000, 100, 5000


def kernel_distance(real: np.ndarray, fake: np.ndarray, seed: int = 0) -> float:
    """KID (arXiv 1801.01401) of features (M, F) and (N, F), by torchmetrics: the mean over KID_SUBSETS random subsets
    of min(KID_SUBSET, M, N) images; can be negative."""
    from torchmetrics.image.kid import KernelInceptionDistance

    size = min(KID_SUBSET, len(real), len(fake))
    number = KID_SUBSETS if size < max(len(real), len(fake)) else 1  # else every subset is the whole
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it keeps all features: they are in memory anyway
        metric = KernelInceptionDistance(_Given(fake.shape[1]), number, size, sync_on_compute=False)
    metric.update(torch.from_numpy(real).double(), real=True)
    metric.update(torch.from_numpy(fake).double(), real=False)
    with torch.random.fork_rng(devices=[]):  # it draws from the global generator
        torch.manual_seed(seed)
        return float(metric.compute()[0])


def kernel_interval(real: np.ndarray, fake: np.ndarray, seed: int = 0) -> Interval:
    """KID with a 95 % interval over the fake images: value +- 1.96 standard errors by the delete-one jackknife.

    A bootstrap would draw an image twice and take its likeness with itself for likeness. Of more than KID_MOST images
    the error is estimated on the first so many.
    """
    value = kernel_distance(real, fake, seed)
    x, y = np.asarray(real[:KID_MOST], np.float64), np.asarray(fake[:KID_MOST], np.float64)
    if len(y) < 3:
        return value, value, value
    within = (y @ y.T / y.shape[1] + 1) ** 3
    np.fill_diagonal(within, 0)
    across, n = ((y @ x.T / y.shape[1] + 1) ** 3).mean(1), len(y)
    without = (within.sum() - 2 * within.sum(1)) / ((n - 1) * (n - 2)) - 2 * (across.sum() - across) / (n - 1)
    error = np.sqrt((n - 1) / n * ((without - without.mean()) ** 2).sum() * n / len(fake))
    return value, value - 1.96 * float(error), value + 1.96 * float(error)


def total_interval(values: Sequence[float], resamples: int = 1000, seed: int = 0) -> Interval:
    """Sum of the values with a 95 % percentile bootstrap interval over them."""
    return tuple(len(values) * bound for bound in mean_interval(values, resamples, seed))  # type: ignore[return-value]
