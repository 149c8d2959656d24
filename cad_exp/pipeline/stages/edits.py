"""Edits that scores choose, and random edits of the same budget beside them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cad_exp.pipeline.stage import Chosen, Derived
from cad_exp.pipeline.stages.interactions import JointEdit
from cad_exp.pipeline.stages.scores import SpaceScores
from cad_exp.utils.errors import UserError

if TYPE_CHECKING:
    from cad_exp.interventions.edit import Edit
    from cad_exp.pipeline.runtime import Runtime


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

    like: SelectedEdit | JointEdit
    seed: int

    def derive(self, runtime: Runtime) -> Edit:
        """Draw the components."""
        from cad_exp.interventions.selection import random_edit

        scores = self.like.scores
        return random_edit(runtime.get(self.like), runtime.get(scores), scores.granularity, self.seed)
