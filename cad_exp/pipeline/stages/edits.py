"""Edits that scores choose, and random edits of the same budget beside them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from cad_exp.pipeline.stage import Chosen, Derived, Stage, Tick
from cad_exp.pipeline.stages.joint import GatesEdit
from cad_exp.pipeline.stages.scores import SpaceScores
from cad_exp.pipeline.stages.strength import Picked
from cad_exp.utils.errors import UserError

if TYPE_CHECKING:
    from cad_exp.interventions.edit import Edit
    from cad_exp.pipeline.runtime import Runtime

FILE = "edit.safetensors"


@dataclass(frozen=True, eq=False)
class SelectedEdit(Derived["Edit"]):
    """The edit of a method (erase, amplify, ...) that chooses components by their scores.

    ratio: share of the components, in (0, 1], or count: their number; of each group that `scope` names.
    factor: what the chosen components are multiplied by. seed: of random choices.
    """

    scores: SpaceScores
    method: Chosen
    ratio: float | None
    count: int | None
    scope: str
    factor: float
    rounding: str
    seed: int

    def derive(self, runtime: Runtime) -> Edit:
        """Choose the components. UserError where no score has the sign that the edit takes."""
        from cad_exp.interventions.methods import make_edit, own_settings

        scored, own = runtime.get(self.scores), own_settings(self.method.settings)
        budget = (self.scores.granularity, self.ratio, self.count, self.scope, self.factor)
        edit = make_edit(self.method.name, scored, *budget, seed=self.seed, rounding=self.rounding, **own)
        if edit.empty:
            sign = edit.meta["sign"] or "positive"
            raise UserError(
                f"no component has a {sign} score, so edit={self.method.name} has nothing to change: edit=none"
            )
        return edit


@dataclass(frozen=True, eq=False)
class RandomEdit(Derived["Edit"]):
    """As many random components as a selected edit takes, and the same factor."""

    like: SelectedEdit | GatesEdit | Picked
    seed: int

    def derive(self, runtime: Runtime) -> Edit:
        """Draw the components."""
        from cad_exp.interventions.selection import random_edit

        scores = self.like.scores
        return random_edit(runtime.get(self.like), runtime.get(scores), scores.granularity, self.seed)


@dataclass(frozen=True, eq=False)
class SingleEdit(Derived["Edit"]):
    """One component switched off alone.

    sign: 1 for the components that make the concept, -1 for those that suppress it; rank: among these, from 0.
    Empty where there are not so many, and of single weights, which nobody could see.
    """

    scores: SpaceScores
    sign: int
    rank: int

    def derive(self, runtime: Runtime) -> Edit:
        """Switch the component off."""
        from cad_exp.interventions.selection import no_edit

        scored, name = runtime.get(self.scores), self.scores.granularity
        space, scores = scored.space(name), scored.scores[name]
        order = (scores * self.sign).sort(descending=True, stable=True)
        if not space.row_each or self.rank >= len(scores) or order.values[self.rank] <= 0:
            return no_edit(scored)
        chosen = order.indices[self.rank : self.rank + 1]
        facts = {"edit": "single", "scope": "global", "sign": None, "requested": 1, "component": int(chosen)}
        return space.intervention(chosen, 0.0, facts)


@dataclass(frozen=True, eq=False)
class ResampledEdit(Stage["Edit"]):
    """A chosen edit of directions, which adds what the base prompt would give in place of its components."""

    folder: ClassVar[str] = "edits"
    chosen: SelectedEdit | GatesEdit | RandomEdit
    scores: SpaceScores

    def make(self, runtime: Runtime, folder: Path, tick: Tick) -> None:
        """Learn what to add from the noisy latents of the scores."""
        from cad_exp.interventions.resampling import resampled

        whole = self.scores.scores
        model, latents = runtime.get(whole.question.model), runtime.get(whole.latents)
        resampled(runtime.get(self.chosen), model, latents).save(folder / FILE)

    def load(self, runtime: Runtime, folder: Path) -> Edit:
        """Read the edit."""
        from cad_exp.interventions.edit import Edit

        return Edit.load(folder / FILE)
