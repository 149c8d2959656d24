"""Gradients under random ablation: the linear effect of every component where edits happen."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from cad_exp.attribution.estimators.base import Estimator, Scores, Watch
from cad_exp.attribution.estimators.patterns import stratified
from cad_exp.attribution.game import Game
from cad_exp.utils.errors import UserError


class AblatedGradients(Estimator):
    """Mean of dJ/dgate over random patterns in which a share (`rates`, in turn) of the components is ablated.

    What a component does among such patterns is the mean of J(with it) - J(without it), the integral of its gradient
    from gate 0 to 1. The trapezoid rule gives it: half the mean gradient over patterns that keep the component, half
    that over patterns that ablate it. It is exact where J is quadratic in each single gate, as CAD's erase objective
    nearly is; `midpoint=False` takes the plain mean over all patterns instead, with less variance and more bias.
    Patterns are stratified, so each component is ablated patterns * rate times, give or take one; one that never was
    falls back on the patterns that keep it. errors: from the variance over patterns, both halves taken as independent.

    passes: how often the noisy latents are gone through. In each pass they are shuffled and dealt to `patterns /
    passes` of the patterns (rounded up to a multiple of the passes), so with passes=1 all patterns together cost what
    one gradient at the intact model does. Then what a component does while it is ablated rests on the noisy latents of
    the few patterns that ablate it. None: every pattern sees all noisy latents. With fewer noisy latents than patterns,
    there are fewer patterns.
    """

    name = "ablated_gradients"

    def __init__(
        self,
        patterns: int = 32,
        rates: Sequence[float] = (0.05, 0.1),
        midpoint: bool = True,
        seed: int = 0,
        passes: int | None = None,
    ):
        self.patterns, self.rates = int(patterns), [float(rate) for rate in rates]
        self.passes = self.patterns if passes is None else int(passes)
        if not 1 <= self.passes <= self.patterns:
            raise UserError(f"patterns={patterns}, passes={passes}: use 1 or more passes, and as many patterns or more")
        self.midpoint, self.seed = bool(midpoint), int(seed)

    def _estimate(self, game: Game, watch: Watch) -> Scores:
        generator = torch.Generator().manual_seed(self.seed)
        kept, ablated = _Moments(game.n), _Moments(game.n)
        games = self._games(watch.of(game, self.passes))
        for part, gates in zip(games, stratified(game.n, self.rates, len(games), generator), strict=True):
            _, gradient = part.value_and_gradient(gates)
            if self.midpoint:
                kept.add(gradient, gates)
                ablated.add(gradient, 1 - gates)
            else:
                kept.add(gradient, torch.ones(game.n))
        facts = {
            "passes": self.passes,
            "patterns": len(games),
            "rates": self.rates,
            "midpoint": self.midpoint,
            "seed": self.seed,
        }
        if not self.midpoint:
            return Scores(kept.mean, kept.variance().sqrt(), facts)
        # Where one half saw nothing, the other stands for both.
        low = torch.where(ablated.count > 0, ablated.mean, kept.mean)
        high = torch.where(kept.count > 0, kept.mean, ablated.mean)
        variance = (kept.variance() + ablated.variance(instead=kept)) / 4
        facts["never_ablated"] = int((ablated.count == 0).sum())
        return Scores((low + high) / 2, variance.sqrt(), facts)

    def _games(self, game: Game) -> list[Game]:
        """Return the game that each pattern is played in: on all noisy latents, or on its share of them."""
        share = -(-self.patterns // self.passes)
        if share == 1:
            return [game] * self.patterns
        return [part for number in range(self.passes) for part in game.deal(share, self.seed * self.passes + number)]


class _Moments:
    """Running mean and variance per component over those patterns that count for it (Welford)."""

    def __init__(self, n: int):
        self.count, self.mean, self.squares = torch.zeros(n), torch.zeros(n), torch.zeros(n)

    def add(self, values: torch.Tensor, counts: torch.Tensor) -> None:
        """Take values (n,) into account where counts (n,) is 1; elsewhere it is 0."""
        self.count += counts
        step = (values - self.mean) * counts
        self.mean += step / self.count.clamp(min=1)
        self.squares += step * (values - self.mean)

    def variance(self, instead: _Moments | None = None) -> torch.Tensor:
        """Return that of the mean (n,); infinite where fewer than two values leave it open.

        instead: whose spread stands for that of fewer than two values.
        """
        spread = self.squares / (self.count - 1).clamp(min=1)
        if instead is not None:
            spread = torch.where(self.count > 1, spread, instead.squares / (instead.count - 1).clamp(min=1))
        known = (self.count > 1) | torch.tensor(instead is not None)
        return torch.where(known, spread / self.count.clamp(min=1), torch.inf)
