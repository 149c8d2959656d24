"""Distances between distributions of images: FID and KID of features. Pure functions of arrays."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import torch

from cad_exp.evaluation.intervals.resampled import Bootstrapped, Jackknifed


class _Given(torch.nn.Module):
    """Hands precomputed features (N, F) to torchmetrics' FID in the place of a network."""

    def __init__(self, width: int):
        super().__init__()
        self.num_features = width

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return the features as they are."""
        return features


@dataclass(frozen=True)
class Statistics:
    """What FID needs of features: mean (F,) and unbiased covariance (F, F); of how many images, None if not known."""

    mean: np.ndarray
    covariance: np.ndarray
    number: int | None

    @classmethod
    def of(cls, features: np.ndarray) -> Statistics:
        """Return the statistics of features (N, F), N at least 2."""
        x = np.asarray(features, dtype=np.float64)
        return cls(x.mean(0), np.cov(x, rowvar=False).reshape(x.shape[1], x.shape[1]), len(x))


def frechet_distance(real: np.ndarray | Statistics, fake: np.ndarray) -> float:
    """Compute the Frechet distance of features (N, F) to others, by torchmetrics in double precision.

    real: features (M, F), or their statistics. Source: arXiv 1706.08500.
    """
    from torchmetrics.image.fid import FrechetInceptionDistance

    # sync_on_compute: every process already holds all images; adding them up again would count them twice.
    metric = FrechetInceptionDistance(feature=_Given(fake.shape[1]), sync_on_compute=False).set_dtype(torch.float64)
    if isinstance(real, Statistics):
        mean, n = torch.from_numpy(real.mean).double(), real.number or 2  # the number cancels out
        covariance = torch.from_numpy(real.covariance).double()
        sums = {"sum": n * mean, "cov_sum": (n - 1) * covariance + n * torch.outer(mean, mean), "num_samples": n}
        for name, value in sums.items():
            setattr(metric, f"real_features_{name}", getattr(metric, f"real_features_{name}") + value)
    else:
        metric.update(torch.from_numpy(real).double(), real=True)
    metric.update(torch.from_numpy(fake).double(), real=False)
    return float(metric.compute())


def quick_frechet(real: Statistics, fake: np.ndarray) -> float:
    """Compute `frechet_distance` fast, for many resamples of fewer images than features.

    The n centred images X span the covariance X'X / (n - 1), so the trace of the root of C X'X / (n - 1) is that of the
    small symmetric matrix X C X' / (n - 1).
    """
    x = np.asarray(fake, dtype=np.float64)
    gap, x = x.mean(0) - real.mean, x - x.mean(0)
    if len(x) > x.shape[1]:
        x = np.asarray(np.linalg.qr(x, mode="r"))
    size = len(fake) - 1
    roots = np.sqrt(np.linalg.eigvalsh(x @ real.covariance @ x.T / size).clip(0))
    return float(gap @ gap + np.trace(real.covariance) + (x * x).sum() / size - 2 * roots.sum())


def frechet_estimate(
    real: np.ndarray | Statistics, fake: np.ndarray, resamples: int = 50, seed: int = 0
) -> Bootstrapped:
    """Estimate the Frechet distance with a bootstrap over the fake images.

    The same images are drawn whenever N and seed agree.
    """
    value, rng = frechet_distance(real, fake), np.random.default_rng(seed)
    known = real if isinstance(real, Statistics) else Statistics.of(real)
    drawn = [quick_frechet(known, fake[rng.integers(0, len(fake), len(fake))]) for _ in range(resamples)]
    return Bootstrapped(value, np.array(drawn))


KID_SUBSET, KID_SUBSETS, KID_MOST = 1000, 100, 5000


def kernel_distance(real: np.ndarray, fake: np.ndarray, seed: int = 0) -> float:
    """Compute KID (arXiv 1801.01401) of features (M, F) and (N, F), by torchmetrics.

    It is the mean over KID_SUBSETS random subsets of min(KID_SUBSET, M, N) images, and can be negative.
    """
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


def kernel_estimate(real: np.ndarray, fake: np.ndarray, seed: int = 0) -> Jackknifed:
    """Estimate KID with its delete-one values, of which the first KID_MOST images of either side are taken.

    A bootstrap would draw an image twice and take its likeness with itself for likeness. The unbiased estimate is below
    0 for images that are spread evenly over their prompts: then an image meets fewer of its own kind among the others
    than among the reference, by about 1/N, and with few images that is all one sees.
    """
    value = kernel_distance(real, fake, seed)
    x, y = np.asarray(real[:KID_MOST], np.float64), np.asarray(fake[:KID_MOST], np.float64)
    if min(len(x), len(y)) < 3:
        return Jackknifed(value, np.zeros(len(y)), np.zeros(len(x)))
    across = (y @ x.T / y.shape[1] + 1) ** 3
    (within_y, rest_y), (within_x, rest_x) = map(_likeness, (y, x))
    total, n, m = across.sum(), len(y), len(x)
    without_y = within_x + rest_y - 2 * (total - across.sum(1)) / ((n - 1) * m)
    without_x = rest_x + within_y - 2 * (total - across.sum(0)) / (n * (m - 1))
    return Jackknifed(value, without_y, without_x)


def _likeness(x: np.ndarray) -> tuple[float, np.ndarray]:
    """Return the mean kernel of two different rows of x (n, F), and the same without each row (n,)."""
    kernel, n = (x @ x.T / x.shape[1] + 1) ** 3, len(x)
    np.fill_diagonal(kernel, 0)
    total = kernel.sum()
    return total / (n * (n - 1)), (total - 2 * kernel.sum(1)) / ((n - 1) * (n - 2))
