"""What every estimator is, and what it gives."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from cad_exp.attribution.game import Game
from cad_exp.interventions.spaces import GRANULARITIES
from cad_exp.utils.errors import UserError


@dataclass
class Scores:
    """values (n,) fp32: estimates of J(intact) - J(component ablated), so positive ones help the concept.

    errors (n,) fp32: their standard errors, where the estimator knows them. facts: JSON-able diagnostics.
    """

    values: Tensor
    errors: Tensor | None = None
    facts: dict[str, Any] = field(default_factory=dict)


class Estimator:
    """A rule that turns a game into one signed score per component. Its settings are the constructor's arguments.

    additive: scores of single weights, summed, are its scores at every coarser granularity, so one estimate serves all.
    granularities: where its cost is finite. progress(done, total), if set, counts evaluations of single probes.
    """

    name: str
    additive: bool = False
    granularities: tuple[str, ...] = tuple(GRANULARITIES)
    progress: Callable[[int, int], None] | None = None
    checkpoint: Path | None = None  # where those that evaluate many ablations keep what they have finished

    def estimate(self, game: Game) -> Scores:
        """One score per component of the game. UserError where `granularities` does not hold the game's."""
        if game.cut.name not in self.granularities:
            fit = " or ".join(f"granularity={name}" for name in self.granularities)
            raise UserError(f"estimator {self.name} is not for granularity {game.cut.name}: use {fit}")
        return self._estimate(game)

    def _estimate(self, game: Game) -> Scores:
        raise NotImplementedError

    @contextmanager
    def _reporting(self, game: Game, passes: int) -> Iterator[None]:
        """Meanwhile, the objective's progress over its probes becomes this estimator's over `passes` rounds of them."""
        if self.progress is None:
            yield
            return
        objective, before, last = game.objective, 0, 0
        total, old = passes * len(objective.probes), getattr(objective, "progress", None)

        def report(done: int, _: int) -> None:
            nonlocal before, last
            if done <= last:  # the next round has begun
                before += last
            last = done
            self.progress(min(before + done, total), total)

        objective.progress = report
        try:
            yield
        finally:
            objective.progress = old
