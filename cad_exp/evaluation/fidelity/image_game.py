"""The image game: what a judge finds in the images of an ablated model, as a function of the gates.

J is a stand-in for what images show. Held against this game, scores and J itself are asked whether they tell of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from cad_exp.data.requests import ImageRequest
from cad_exp.evaluation.erasure import shows
from cad_exp.interventions.spaces import ComponentSpace
from cad_exp.models.pipeline import DiffusionModel
from cad_exp.utils import distributed
from cad_exp.utils.errors import UserError

# name -> what it is called; the rate is what people mean, the log-odds move before the judge changes its mind
MEASURES = {"rate": "the concept rate of images", "log_odds": "the judge's mean log-odds of the concept in images"}
Remember = Callable[[Tensor, Callable[[], Tensor]], Tensor]  # (question, how to answer it) -> answer


class ImageGame:
    """Images of the concept's requests under every ablation, judged; gates (n,): 1 intact, 0 ablated, nothing between.

    requests: prompts and seeds, the same for every ablation. remember: keeps answers; None asks anew each time.
    Raises UserError without a label that the judge knows.
    """

    def __init__(
        self,
        model: DiffusionModel,
        judge: Any,
        requests: Sequence[ImageRequest],
        space: ComponentSpace,
        remember: Remember | None = None,
        batch_size: int = 64,
    ):
        if judge is None or not requests[0].label:
            raise UserError("evaluation.fidelity.images needs a judge and a concept.label that it knows")
        self.model, self.judge, self.requests = model, judge, list(requests)
        self.space, self.n = space, space.n
        self.remember, self.batch_size = remember or (lambda _, answer: answer()), batch_size

    def judged(self, gates: Tensor) -> Tensor:
        """Return concept rate and mean log-odds (A, 2) fp64 under the ablations (A, n); processes share them."""
        if ((gates != 0) & (gates != 1)).any():
            raise UserError("images are made of components that are there or not: gates of 0 and 1 only")
        return self.remember(gates, lambda: self._judged(gates))

    def measured(self, name: str) -> Measured:
        """Return this game with one of MEASURES as its value."""
        return Measured(self, list(MEASURES).index(name))

    def _judged(self, gates: Tensor) -> Tensor:
        found = torch.zeros(len(gates), 2, dtype=torch.float64, device=self.model.device)
        for row in distributed.share(range(len(gates))):
            found[row] = torch.tensor(self._look(gates[row]))
        distributed.add_up([found])
        return found.cpu()

    def _look(self, gates: Tensor) -> tuple[float, float]:
        removed = (gates == 0).nonzero()[:, 0]
        edit, request = self.space.intervention(removed), self.requests[0]
        with edit.apply(self.model):
            prompts, seeds = [request.prompt for request in self.requests], [request.seed for request in self.requests]
            images = self.model.generate(prompts, seeds=seeds, batch_size=self.batch_size)
        said = pd.concat(
            [pd.DataFrame([vars(request) for request in self.requests]), self.judge.labels(images)[0]], axis=1
        )
        with torch.no_grad():
            pixels = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
            odds = self.judge.log_odds(pixels, request.kind, request.label)
        return float(shows(said).mean()), float(odds.double().mean())


class Measured:
    """An image game of one measure, as the studies of fidelity ask for it: n, intact, values(gates)."""

    def __init__(self, game: ImageGame, column: int):
        self.game, self.column, self.n, self.space = game, column, game.n, game.space
        self.at_once = 4 * distributed.size()  # images take their time: a killed study loses only the last few

    @cached_property
    def intact(self) -> float:
        """The value of the intact model."""
        return float(self.values(torch.ones(1, self.n))[0])

    def values(self, gates: Tensor) -> Tensor:
        """Return the values (A,) fp64 of ablations (A, n)."""
        return self.game.judged(gates)[:, self.column]
