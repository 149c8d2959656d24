"""COAR: components' effects by regression of J on random ablations."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cad_exp.attribution.estimators.base import Scores, Watch
from cad_exp.attribution.estimators.blocks import AblationEstimator
from cad_exp.attribution.estimators.patterns import balanced
from cad_exp.attribution.game import Game
from cad_exp.utils.errors import UserError

CHUNK = 4096  # columns of the patterns that are floating-point numbers at one time


class Coar(AblationEstimator):
    """Ridge regression of J on which components are ablated (Shah, Ilyas, Madry, arXiv 2404.11534).

    patterns: random ablations of a share `rate` of the components on average. Their sizes differ, for among ablations
    of one size nobody can tell a slope that all components share from the offset. ridge: the penalty; None chooses it
    by generalised cross-validation. A fifth of the patterns is held out: `held_out_r2` in the facts is the fit's there,
    then all patterns are fitted. errors: of the ridge coefficients given the penalty, which shrinks towards 0 as well.
    """

    name = "coar"

    def __init__(self, patterns: int = 512, rate: float = 0.1, ridge: float | None = None, seed: int = 0):
        if patterns < 10 or (ridge is not None and ridge <= 0):
            raise UserError(f"patterns={patterns}, ridge={ridge}: use 10 patterns or more, and a ridge above 0 or null")
        self.patterns, self.rate, self.ridge, self.seed = int(patterns), float(rate), ridge, int(seed)

    def _estimate(self, game: Game, watch: Watch) -> Scores:
        generator = torch.Generator().manual_seed(self.seed)
        gates = balanced(game.n, self.rate, self.patterns, generator)
        settings = {"rate": self.rate, "seed": self.seed}
        game = watch.of(game, self.patterns + 1)
        values = self._values(game, lambda a, b: gates[a:b].float(), self.patterns, settings, watch.checkpoint)
        order = torch.randperm(self.patterns, generator=generator)
        held, used = order[: self.patterns // 5], order[self.patterns // 5 :]
        first = ridge_regression(~gates[used], values[used], self.ridge)
        missed = values[held] - first.predict(~gates[held])
        spread = (values[held] - values[held].mean()).square().sum().item()
        fit = ridge_regression(~gates, values, self.ridge)
        facts = {"passes": self.patterns, **settings, "ridge": fit.ridge, "r2": fit.r2}
        facts["held_out_r2"] = 1 - missed.square().sum().item() / spread if spread > 0 else None
        return Scores(-fit.slopes.float(), fit.errors.float(), facts, game.intact)


@dataclass
class Fit:
    """y ~ offset + x slopes: slopes (n,) with standard errors (n,), fp64; r2 on the data that it was fitted to."""

    slopes: Tensor
    errors: Tensor
    offset: float
    ridge: float
    r2: float | None

    def predict(self, x: Tensor) -> Tensor:
        """Return y (R,) fp64 of x (R, n) bool."""
        parts = range(0, x.shape[1], CHUNK)
        products = (x[:, a : a + CHUNK].double() @ self.slopes[a : a + CHUNK] for a in parts)
        return self.offset + sum(products, start=self.slopes.new_zeros(len(x)))


def ridge_regression(x: Tensor, y: Tensor, ridge: float | None = None) -> Fit:
    """Fit y (M,) fp64 to x (M, n) bool by least squares, with an offset and the penalty ridge * |slopes|^2.

    Closed form by the singular values of x. ridge=None: the penalty on a grid with the least generalised
    cross-validation error (Golub, Heath, Wahba 1979).
    """
    mean = torch.cat([part.double().mean(0) for part in x.split(CHUNK, 1)])
    right, singular = _decompose(x, mean)
    target, squares = y - y.mean(), singular.square()
    moments = torch.cat([part.double().T @ target for part in x.split(CHUNK, 1)])  # target sums to 0: mean drops out
    scores = right.T @ moments / singular  # y in the basis of the left singular vectors
    total = target.square().sum()
    outside = (total - scores.square().sum()).clamp(min=0)  # what no slopes can explain

    def misfit(penalty: float) -> tuple[float, float]:
        """Return the sum of squared residuals, and the degrees of freedom that are left."""
        shrunk = penalty / (squares + penalty)
        rss = (scores * shrunk).square().sum() + outside
        return rss.item(), max((len(x) - 1 - (1 - shrunk).sum()).item(), 1e-6)

    def cross_validation(penalty: float) -> float:
        rss, free = misfit(penalty)
        return rss / free**2

    if ridge is None:
        top = squares.max().item() if len(squares) else 1.0
        ridge = min((top * torch.logspace(-9, 3, 49, dtype=torch.float64)).tolist(), key=cross_validation)
    rss, free = misfit(ridge)
    slopes = right @ (scores * singular / (squares + ridge))
    errors = (right.square() @ (singular / (squares + ridge)).square() * rss / free).sqrt()
    r2 = 1 - rss / total.item() if total > 0 else None
    return Fit(slopes, errors, (y.mean() - mean @ slopes).item(), float(ridge), r2)


def _decompose(x: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
    """Return right singular vectors (n, k) and singular values (k,) > 0 of x (M, n) - mean (n,), in fp64.

    By the eigenvalues of the smaller Gram matrix; the larger is never formed, nor all of a wide x as floats.
    """

    def centred(start: int) -> Tensor:
        return x[:, start : start + CHUNK].double() - mean[start : start + CHUNK]

    starts = range(0, x.shape[1], CHUNK)
    if x.shape[1] <= len(x):
        whole = x.double() - mean
        squares, vectors = torch.linalg.eigh(whole.T @ whole)
    else:
        squares, vectors = torch.linalg.eigh(sum(part @ part.T for part in map(centred, starts)))
    keep = squares > squares[-1].clamp(min=0) * 1e-12 * len(squares)
    singular, vectors = squares[keep].sqrt(), vectors[:, keep]
    if x.shape[1] > len(x):
        vectors = torch.cat([centred(start).T @ vectors for start in starts]) / singular
    return vectors, singular
