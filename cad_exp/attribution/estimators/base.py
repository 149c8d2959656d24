"""What every estimator is, and what it gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from cad_exp.attribution.game import Game
from cad_exp.interventions.spaces import GRANULARITIES, ComponentSpace, Granularity, Scale
from cad_exp.utils.errors import UserError


@dataclass
class Scores:
    """values (n,) fp32: estimates of J(intact) - J(component ablated), so positive ones help the concept.

    errors (n,) fp32: their standard errors, where the estimator knows them. facts: JSON-able diagnostics. intact: J of
    the intact model, where the estimator had to know it.
    """

    values: Tensor
    errors: Tensor | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    intact: float | None = None


@dataclass(frozen=True)
class Watch:
    """How a long estimate is watched and kept.

    progress(done, total): counts evaluations of single noisy latents. checkpoint: a file to which those that evaluate
    many ablations write what they have finished, and from which a stopped run goes on.
    """

    progress: Callable[[int, int], None] | None = None
    checkpoint: Path | None = None

    def of(self, game: Game, passes: int) -> Game:
        """Return the game whose objective's progress is this one's over `passes` rounds of its noisy latents."""
        if self.progress is None:
            return game
        listener, before, last = self.progress, 0, 0
        total = passes * len(game.objective.latents)

        def report(done: int, _: int) -> None:
            nonlocal before, last
            if done <= last:  # the next round has begun
                before += last
            last = done
            listener(min(before + done, total), total)

        return game.reporting(report)


UNWATCHED = Watch()


class Estimator:
    """A rule that turns a game into one signed score per component. Its settings are the constructor's arguments.

    name: what results call it; the name of the class where it is left out.
    additive: scores of single weights, summed, are its scores at every coarser granularity, so one estimate serves all.
    scale: the most components that it can afford. requires_weights: whether components have to be weights;
    requires_values: whether they have to have values in activations, as latents do.
    """

    name: str
    additive: bool = False
    scale: Scale = Scale.WEIGHTS
    requires_weights: bool = False
    requires_values: bool = False

    def __init_subclass__(cls, **more: Any) -> None:
        super().__init_subclass__(**more)
        if "name" not in vars(cls):  # results must say which class made the scores
            cls.name = cls.__name__

    def estimate(self, game: Game, watch: Watch = UNWATCHED) -> Scores:
        """Score every component of the game. UserError where the estimator is not for its space."""
        if not self.fits(game.space):
            fit = " or ".join(f"granularity={name}" for name in GRANULARITIES if self.fits(GRANULARITIES.get(name)))
            raise UserError(f"estimator {self.name} is not for granularity {game.space.name}: use {fit}")
        found = self._estimate(game, watch)
        if not isinstance(found, Scores) or found.values.shape != (game.n,):
            raise UserError(f"estimator {self.name} has to return Scores with {game.n} values, one per component")
        return found

    @classmethod
    def fits(cls, space: ComponentSpace | type[Granularity]) -> bool:
        """Return whether it can score the components of a space, or of a granularity."""
        has_parts = (space.of_weights or not cls.requires_weights) and (space.has_values or not cls.requires_values)
        return space.scale <= cls.scale and has_parts

    def _estimate(self, game: Game, watch: Watch) -> Scores:
        raise UserError(f"estimator {self.name} lacks the method _estimate(self, game, watch), which returns Scores")
