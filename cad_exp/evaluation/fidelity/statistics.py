"""Agreement: of predictions with the truth, and of scores with those of another seed, noisy latents or a control.

Sources: sanity checks by randomised weights, Adebayo et al. (arXiv 1810.03292).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import combinations
from typing import Any
from zlib import crc32

import numpy as np
import pandas as pd
import torch
from scipy.stats import binomtest
from torch import Tensor, nn

from cad_exp.evaluation.fidelity.thresholds import RELATED, STABLE_OVERLAP, STABLE_SPEARMAN
from cad_exp.utils.errors import UserError

SHARES = (0.01, 0.05, 0.1)  # of the ranking's top, for the overlap of two rankings
STREAM = 20_040  # names the random numbers of these studies: no estimator draws from the same stream
RESAMPLED = 2**21  # numbers that one block of bootstrap resamples holds

Bounded = tuple[float, float | None, float | None]  # value, low, high of a 95 % interval; None where there is none


def stream(seed: int, *names: Any) -> np.random.Generator:
    """Return a random generator of this seed and purpose, which nothing else has."""
    return np.random.default_rng([seed, STREAM, *(crc32(str(name).encode()) for name in names)])


def agreement(predicted: Any, true: Any, resamples: int = 1000, seed: int = 0) -> dict[str, Any]:
    """Measure how well predictions (A,) agree with the truth (A,).

    Whether they rise and fall together: pearson, spearman (ties share their mean rank) and slope, of the least squares
    line of true on predicted, with its intercept. Whether they are right:

    - bias, the mean of true - predicted, and relative_bias, that divided by the mean of |true|;
    - sign, the share of pairs with equal signs (two zeros are equal, a zero and a number are not);
    - r2 = 1 - sum (true - predicted)^2 / sum (true - mean true)^2, to the line "true = predicted" and no fitted one:
      1 is perfect, 0 as good as always saying the mean, below 0 worse than that.

    Each is (value, low, high): a 95 % percentile bootstrap over pairs, for the share of signs Wilson's. None where it
    is not defined: for n < 3 (bias and sign: n = 0), and where true (slope: predicted; correlations: either) does not
    vary. relative_bias and intercept are numbers without an interval, n is the number of pairs.
    """
    x, y = np.asarray(predicted, dtype=np.float64), np.asarray(true, dtype=np.float64)
    if not len(x):
        return {"n": 0, "intercept": None, "relative_bias": None, "sign": None} | dict.fromkeys(_STATISTICS)
    resampled = _resampled(x, y, resamples, seed)
    found: dict[str, Any] = {"n": len(x), "intercept": None, "sign": _signs(x, y)}
    for name, statistic in _STATISTICS.items():
        value = float(statistic(x, y)) if name == "bias" or len(x) > 2 else np.nan
        found[name] = _bounded(value, resampled[name]) if np.isfinite(value) else None
    if found["slope"]:
        found["intercept"] = float(y.mean() - found["slope"][0] * x.mean())
    size = np.abs(y).mean()
    return found | {"relative_bias": float(found["bias"][0] / size) if size else None}


def _resampled(x: np.ndarray, y: np.ndarray, resamples: int, seed: int) -> dict[str, np.ndarray]:
    """Return every statistic of (x, y) in bootstrap resamples of pairs, in blocks that fit into memory."""
    rng, block = np.random.default_rng(seed), max(1, RESAMPLED // len(x))
    drawn: dict[str, list[np.ndarray]] = {name: [np.zeros(0)] for name in _STATISTICS}
    for first in range(0, resamples, block):
        index = rng.integers(0, len(x), (min(block, resamples - first), len(x)))
        for name, statistic in _STATISTICS.items():
            drawn[name].append(statistic(x[index], y[index]))
    return {name: np.concatenate(blocks) for name, blocks in drawn.items()}


def _signs(x: np.ndarray, y: np.ndarray) -> Bounded:
    """Share of pairs with equal signs, with Wilson's 95 % interval."""
    equal = int((np.sign(x) == np.sign(y)).sum())
    interval = binomtest(equal, len(x)).proportion_ci(method="wilson")
    return equal / len(x), float(interval.low), float(interval.high)


def _bounded(value: float, drawn: np.ndarray) -> Bounded:
    """Return a value with the 2.5th and 97.5th percentile of the resamples in which there was something to compare."""
    drawn = drawn[np.isfinite(drawn)]
    low, high = np.percentile(drawn, [2.5, 97.5]) if len(drawn) else (None, None)
    return value, None if low is None else float(low), None if high is None else float(high)


def _varies(x: np.ndarray) -> np.ndarray:
    """Return whether numbers differ along the last axis by more than the rounding of a sum does."""
    differ: np.ndarray = np.ptp(x, -1) > 1e-12 * np.abs(x).max(-1)
    return differ


def _pearson(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Correlate along the last axis; NaN where one side does not vary."""
    varied = _varies(x) & _varies(y)
    x, y = x - x.mean(-1, keepdims=True), y - y.mean(-1, keepdims=True)
    size = np.linalg.norm(x, axis=-1) * np.linalg.norm(y, axis=-1)
    return np.where(varied, (x * y).sum(-1) / np.where(varied, size, 1.0), np.nan).clip(-1, 1)


def _slope(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the slope of y on x along the last axis; NaN where x does not vary."""
    varied = _varies(x)
    x = x - x.mean(-1, keepdims=True)
    return np.where(varied, (x * y).sum(-1) / np.where(varied, (x * x).sum(-1), 1.0), np.nan)


def _r2(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the R2 of y to the line y = x along the last axis; NaN where y does not vary."""
    varied, total = _varies(y), np.square(y - y.mean(-1, keepdims=True)).sum(-1)
    return np.where(varied, 1 - np.square(y - x).sum(-1) / np.where(varied, total, 1.0), np.nan)


def _ranks(x: np.ndarray) -> np.ndarray:
    """Rank along the last axis; equal numbers share their mean rank."""
    return pd.DataFrame(x.T).rank().to_numpy().T if x.ndim > 1 else pd.Series(x).rank().to_numpy()


_STATISTICS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "pearson": _pearson,
    "spearman": lambda x, y: np.where(_varies(x) & _varies(y), _pearson(_ranks(x), _ranks(y)), np.nan),
    "slope": _slope,
    "bias": lambda x, y: (y - x).mean(-1),
    "r2": _r2,
}


def stability(scores_by_seed: Sequence[Tensor], shares: Sequence[float] = SHARES) -> dict[str, Any]:
    """Measure how far score vectors (n,) of equal settings agree: of several seeds, or of the noisy latents' halves.

    The mean over all pairs of spearman (None where scores do not vary) and, per share, of the overlap of their top
    components (highest scores), 0..1; two random rankings overlap by the share itself. `stable` and a `verdict` for a
    person: stable means spearman of at least 0.9 and an overlap of the top 5 % of at least 0.8. UserError for fewer
    than two.
    """
    if len(scores_by_seed) < 2:
        raise UserError(
            "stability compares at least two score vectors: use another seed, or halves of the noisy latents"
        )
    arrays = [scores.detach().double().cpu().numpy() for scores in scores_by_seed]
    every = {*shares, 0.05}
    ranks = [_ranks(scores) for scores in arrays]
    tops = [{share: top(scores, share) for share in every} for scores in arrays]
    pairs = list(combinations(range(len(arrays)), 2))
    together = [float(_pearson(ranks[a], ranks[b])) for a, b in pairs]
    spearman = None if np.isnan(together).any() else float(np.mean(together))
    overlap = {s: float(np.mean([np.isin(tops[a][s], tops[b][s]).mean() for a, b in pairs])) for s in every}
    stable = spearman is not None and spearman >= STABLE_SPEARMAN and overlap[0.05] >= STABLE_OVERLAP
    rank = "undefined" if spearman is None else f"{spearman:.2f}"
    seen = f"rank correlation {rank}, top 5 % shared {overlap[0.05]:.0%}"
    wanted = f"at least {STABLE_SPEARMAN} and {STABLE_OVERLAP:.0%} are needed: use more noisy latents"
    verdict = f"the ranking is stable ({seen})" if stable else f"the ranking is not yet stable ({seen}; {wanted})"
    overlap = {share: overlap[share] for share in shares}
    return {"pairs": len(pairs), "spearman": spearman, "overlap": overlap, "stable": stable, "verdict": verdict}


def top(scores: np.ndarray, share: float) -> np.ndarray:
    """Return the numbers of the highest scores: this share of all, at least one."""
    count = max(1, round(share * len(scores)))
    return np.argsort(-scores, kind="stable")[:count]


def growth(estimate: Callable[[int], Sequence[Tensor]], numbers: Sequence[int]) -> list[dict[str, Any]]:
    """Return `stability` for growing numbers of noisy latents, each with its `noisy_latents`.

    estimate(number): score vectors, each from that many noisy latents, with no noisy latent in common (see `halves`).
    """
    return [{"noisy_latents": int(number), **stability(estimate(int(number)))} for number in sorted(numbers)]


def spread(total: int, number: int, seed: int = 0) -> Tensor:
    """Choose `number` of `total` noisy latents, sorted and spread evenly: one from each stretch, at random.

    So no timestep of a trajectory is favoured. All are taken where there are no more.
    """
    if number >= total:
        return torch.arange(total)
    edges = np.arange(number + 1) * total // number
    return torch.from_numpy(edges[:-1] + (stream(seed, "spread").random(number) * np.diff(edges)).astype(np.int64))


def halves(total: int, number: int, steps: int = 1, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Choose two sets of at most `number` noisy latents without one in common.

    They come out of `total`, which lie in trajectories of `steps`. No trajectory gives to both where there are at least
    two; of a single one, they take turns.
    """
    if total // steps < 2:
        points = torch.arange(total)
        first, second = (points[side::2][spread((total + 1 - side) // 2, number, seed)] for side in (0, 1))
        return first, second
    half = total // steps // 2 * steps
    return spread(half, number, seed), half + spread(half, number, seed)


def sanity(scores: Tensor, controls: dict[str, Tensor]) -> dict[str, dict[str, Any]]:
    """Correlate scores (n,) with those of controls, in which what they should depend on has been destroyed.

    controls: name -> scores (n,), for example `random_weights` (estimated with `random_weights`) and `other_concept`
    (estimated with another concept's noisy latents). Per control: pearson and spearman (-1..1, None where scores do not
    vary), overlap of the top 5 %, and `passed`: |spearman| of at most 0.5. An estimator that fails shows the network,
    not the concept: weight magnitude fails by construction.
    """
    found, real = {}, scores.detach().double().cpu().numpy()
    for name, control in controls.items():
        other = control.detach().double().cpu().numpy()
        pearson, spearman = float(_pearson(real, other)), float(_pearson(_ranks(real), _ranks(other)))
        known = not np.isnan(spearman)
        found[name] = {
            "pearson": pearson if known else None,
            "spearman": spearman if known else None,
            "overlap": float(np.isin(top(real, 0.05), top(other, 0.05)).mean()),
            "passed": known and abs(spearman) <= RELATED,
        }
    return found


@contextmanager
@torch.no_grad()
def random_weights(network: nn.Module, seed: int = 0) -> Iterator[None]:
    """Shuffle the entries of every weight matrix and kernel of the network for the block, and undo it afterwards.

    Shuffled and not drawn anew: the sizes of the weights stay, all that was learned about their places is gone. Sample
    the noisy latents inside the block too, for theirs are the intact network's predictions.
    """
    generator, before = torch.Generator().manual_seed(seed), {}
    try:
        for name, weight in network.named_parameters():
            if weight.ndim > 1:
                before[name] = weight.detach().clone()
                order = torch.randperm(weight.numel(), generator=generator).to(weight.device)
                weight.copy_(before[name].flatten()[order].view_as(weight))
        yield
    finally:
        for name, weight in network.named_parameters():
            if name in before:
                weight.copy_(before[name])
