"""edit.strength=auto: how strong an edit has to be, by images that no table shows.

Edits from the weakest to the strongest are tried in turn. Of each is measured what it leaves of the concept and what it
moves elsewhere: at noisy latents of other trajectories, and in images of other seeds and words. The walk ends at the
first that leaves as little as was wished. If that one harms too much, the one between it and the weaker one before is
tried too. If none fulfils all wishes, the best trade is taken, and the reason is written down.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import sqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from cad_exp.data.requests import ImageRequest
from cad_exp.pipeline.stage import Derived, Node, Stage, Tick
from cad_exp.pipeline.stages.joint import GatesTask
from cad_exp.pipeline.stages.judge import Judge
from cad_exp.pipeline.stages.judgements import Judged
from cad_exp.pipeline.stages.scores import SpaceScores
from cad_exp.utils import console, distributed
from cad_exp.utils.errors import UserError

if TYPE_CHECKING:
    import numpy as np

    from cad_exp.interventions.edit import Edit
    from cad_exp.pipeline.runtime import Runtime

FILE = "strengths.json"


@dataclass(frozen=True, eq=False)
class Strength(Stage[dict[str, Any]]):
    """The walk over edits, weakest first.

    strengths: of each; every second one lies between its neighbours (`with_between`). erase: share of the concept's
    images that may still show it. keep: share of all other images that are to show what they name still, of those that
    did. task: what is to go and to stay, at noisy latents of their own. requests: of the images. judged: of each edit;
    unedited: of the intact model. further: requests of the concept alone, by which a strength that erases as wished is
    `confirmed`. Without a judge only noisy latents count.
    """

    folder: ClassVar[str] = "strengths"
    shared: ClassVar[bool] = True
    edits: tuple[Node[Edit], ...]
    strengths: tuple[float, ...]
    erase: float
    keep: float
    task: GatesTask
    judge: Judge | None
    requests: tuple[ImageRequest, ...]
    unedited: Judged | None
    judged: tuple[Judged, ...]
    further: tuple[ImageRequest, ...]
    confirmed: tuple[Judged, ...]

    @property
    def work(self) -> int:
        """Number of edits, without those between two others."""
        return (len(self.edits) + 1) // 2

    def make(self, runtime: Runtime, folder: Path, tick: Tick) -> None:
        """Try the edits in turn, and write down what was found."""
        from cad_exp.evaluation.trade import chosen, reached

        tried: list[dict[str, Any]] = []
        task = runtime.get(self.task)
        way = float(task.distances(task.concept).mean())
        for number in range(0, len(self.strengths), 2):
            tried.append(self._tried(runtime, number, way))
            tick(number // 2 + 1, self.work)
            if reached(tried[-1], self.erase):
                if number and tried[-1]["kept"] < self.keep:
                    tried.insert(-1, self._tried(runtime, number - 1, way))
                break
        number, why = chosen(tried, self.erase, self.keep)
        found = {"tried": tried, "chosen": number, "why": why, "erase": self.erase, "keep": self.keep}
        if distributed.main():
            (folder / FILE).write_text(json.dumps(found, indent=1))

    def load(self, runtime: Runtime, folder: Path) -> dict[str, Any]:
        """Return what was tried, which was chosen, and why."""
        found: dict[str, Any] = json.loads((folder / FILE).read_text())
        return found

    def _tried(self, runtime: Runtime, number: int, way: float) -> dict[str, Any]:
        """Return all that is measured of an edit."""
        measured = {**self._predictions(runtime, number, way), **self._images(runtime, number)}
        row = {"strength": self.strengths[number], **measured}
        console.say("  " + _told(row))
        return row

    def _predictions(self, runtime: Runtime, number: int, way: float) -> dict[str, float]:
        """Return how much of the way to its target an edit leaves to the concept, and how far it moves all else.

        Both at noisy latents. way: the intact model's, as a mean square; so 1 is all of it, and 0 just there.
        """
        task, model = runtime.get(self.task), runtime.get(self.task.model)
        with runtime.get(self.edits[number]).apply(model):
            left, moved = (float(task.distances(points).mean()) for points in (task.concept, task.retained))
        return {"left": left / way, "moved": moved}

    def _images(self, runtime: Runtime, number: int) -> dict[str, float]:
        """Return the concept rate and the retention in images; nothing where no judge says."""
        import numpy as np

        from cad_exp.evaluation.trade import rates

        if self.judge is None or self.unedited is None:
            return {}
        concept = np.array([request.purpose == "concept" for request in self.requests])
        before, after = (self._shown(runtime, self.requests, node) for node in (self.unedited, self.judged[number]))
        found = rates(concept, before, after)
        if self.further and found and found["rate"] <= self.erase:
            more = self._shown(runtime, self.further, self.confirmed[number])
            ones = np.ones(len(more))
            found = rates(np.append(concept, ones == 1), np.append(before, ones), np.append(after, more))
        return found

    def _shown(self, runtime: Runtime, requests: tuple[ImageRequest, ...], judged: Judged) -> np.ndarray:
        """Return whether each image shows what was asked for: 1, 0, or NaN where the judge cannot say."""
        import pandas as pd

        from cad_exp.evaluation.records import shows

        asked, (table, _) = pd.DataFrame([vars(request) for request in requests]), runtime.get(judged)
        judge = None if self.judge is None else runtime.get(self.judge)
        return shows(pd.concat([asked, table.reset_index(drop=True)], axis=1), judge)


@dataclass(frozen=True, eq=False)
class Picked(Derived["Edit"]):
    """The edit that the walk ended with. scores: for what stands beside it."""

    edits: tuple[Node[Edit], ...]
    strength: Strength
    scores: SpaceScores

    def derive(self, runtime: Runtime) -> Edit:
        """Return the edit, which tells how its strength was chosen. UserError where the best is to change nothing."""
        found = runtime.get(self.strength)
        number = self.strength.strengths.index(found["tried"][found["chosen"]]["strength"])
        edit: Edit = runtime.get(self.edits[number])
        if edit.empty:
            raise UserError(
                f"edit.strength=auto ends with an edit that changes no component ({found['why']}): larger "
                "edit.strengths change more"
            )
        return replace(edit, meta={**edit.meta, "chosen_by": found})


def with_between(strengths: Sequence[float]) -> list[float]:
    """Return the strengths, and between every two of them their geometric mean to three digits."""
    found = [*strengths[:1]]
    for weak, strong in pairwise(strengths):
        middle = sqrt(weak * strong)
        short = float(f"{middle:.3g}")
        found += [short if weak < short < strong else middle, strong]
    return found


def _told(row: dict[str, float]) -> str:
    """Return one line on an edit that was tried."""
    told = f"strength {row['strength']:g}: concept's way left {row['left']:.2f}, others moved {row['moved']:.3f}"
    if "rate" in row:
        told += f"; images: concept in {row['rate']:.3f}, others kept in {row['kept']:.3f}"
    return told
