"""A sketch of how gates move a prediction: the Gauss-Newton curvature of all components from few backward passes.

eps(1 + d) = eps(1) + A d + ..., A = d eps / d gates (elements x n) at every noisy latent. With random signs r over the
elements, E[(r'A d)^2] = |A d|^2. So the rows r'A, one backward pass each, estimate for every d how far the prediction
moves, and F'F the matrix A'A of all pairs of components.

1. Draw signs for every noisy latent, and run the gated network on a batch.
2. Where rows can have gates of their own, one backward pass gives a row of F for every noisy latent of the batch.
   Where they cannot (single weights), it gives one row for the whole batch: as good on average, with more noise.
3. The distance from a target, u + A d with u the intact distance, is taken apart: along u it is known exactly, by one
   more backward pass; the signs sketch only what is left. So the sketch cannot promise less than nothing.

Source: Gauss-Newton (Schraudolph, Neural Computation 14, 2002) by random projections (Hutchinson 1989; Johnson and
Lindenstrauss 1984). The objective is CAD's erase (arXiv 2412.02542, eq. 5) to second order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from cad_exp.attribution.interactions.quadratic import Quadratic, total
from cad_exp.data.noisy_latents import NoisyLatents
from cad_exp.interventions.spaces import ComponentSpace
from cad_exp.models.families.condition import Condition
from cad_exp.models.pipeline import DiffusionModel
from cad_exp.utils import distributed
from cad_exp.utils.errors import UserError

Progress = Callable[[int, int], Any]


class Sketcher:
    """Sketches predictions of one model under gates of one space.

    at: gates (n,) around which they are; None: the intact model's. projections: random ones for every noisy latent.
    Raises UserError for components of text encoders, on which the prompts themselves depend.
    """

    def __init__(
        self,
        model: DiffusionModel,
        space: ComponentSpace,
        projections: int = 2,
        seed: int = 0,
        batch_size: int = 16,
        at: Tensor | None = None,
    ):
        if space.gating(model, torch.ones(space.n)).text:
            raise UserError("interactions are of the denoiser's components: choose other granularity.kinds")
        self.model, self.space, self.projections, self.seed = model, space, int(projections), int(seed)
        self.batch_size, self.at = int(batch_size), torch.ones(space.n) if at is None else at.float()

    def rows(
        self,
        latents: NoisyLatents,
        condition: Condition,
        target: Tensor | None = None,
        progress: Progress | None = None,
    ) -> Quadratic:
        """Return the mean squared distance of the prediction from a target as a function of d = gates - at.

        latents: M noisy latents. condition: one row, for all. target: (M, ...) predictions; None: the gated model's own
        at d = 0, from which there is no distance yet.
        """
        signs, batches = self._signs(latents), list(enumerate(latents.batches(self.batch_size)))
        own, passes = distributed.share(batches), self.projections + (target is not None)
        per = [len(batch) if self.space.per_row else 1 for _, batch in batches]
        factor, offset = torch.zeros(passes * sum(per), self.space.n), torch.zeros(passes * sum(per))
        for done, (number, batch) in enumerate(own):
            rows = slice(number * self.batch_size, number * self.batch_size + len(batch))
            drawn, places = signs[:, rows], sum(per[:number]) + torch.arange(per[number])
            if target is not None:
                distance = self._distance(batch, condition, target[rows])
                along = distance / _norm(distance).clamp_min(1e-12)
                drawn = drawn - (drawn * along).flatten(2).sum(2).reshape(len(drawn), len(batch), 1, 1, 1) * along
                if not self.space.per_row:  # the rows of a batch are told apart by a sign for each
                    flip = signs[0, rows].flatten(1)[:, 0].reshape(-1, 1, 1, 1)
                    distance, along = distance * flip, along * flip
                length = (distance * along).flatten(1).sum(1) if self.space.per_row else (distance * along).sum()[None]
                places_of = self.projections * sum(per) + places
                factor[places_of], offset[places_of] = self._pulled(batch, condition, along), length
            for each in range(self.projections):
                factor[each * sum(per) + places] = self._pulled(batch, condition, drawn[each])
            if progress:
                progress((done + 1) * distributed.size(), len(batches))
        distributed.add_up([factor, offset])
        size = latents.x[0].numel() * len(latents)
        scale = torch.full((passes * sum(per), 1), (size * self.projections) ** -0.5)
        scale[self.projections * sum(per) :] = size**-0.5
        return Quadratic(offset * scale[:, 0], factor * scale)

    def _signs(self, latents: NoisyLatents) -> Tensor:
        """Return random signs (projections, M, ...), the same whatever the batches are."""
        generator = torch.Generator().manual_seed(self.seed)
        drawn = torch.randint(0, 2, (self.projections, *latents.x.shape), generator=generator, dtype=torch.int8)
        signs: Tensor = drawn * 2 - 1
        return signs

    def _distance(self, batch: NoisyLatents, condition: Condition, target: Tensor) -> Tensor:
        """Return the prediction's distance (B, ...) from the target at d = 0, on the CPU."""
        batch = batch.to(self.model.device)
        with torch.no_grad(), self.space.gated(self.model, self.at):
            predicted = self.model.predict(batch.x, batch.t, condition).cpu()
        return predicted - target

    def _pulled(self, batch: NoisyLatents, condition: Condition, weights: Tensor) -> Tensor:
        """Return d<weights, eps>/d gates, (B, n) or (1, n) for all rows together, on the CPU."""
        batch = batch.to(self.model.device)
        with torch.enable_grad():
            if self.space.per_row:
                gates = self.at.to(self.model.device).expand(len(batch), -1).clone().requires_grad_()
                with self.space.gated(self.model, gates):
                    (self.model.predict(batch.x, batch.t, condition) * weights.to(self.model.device)).sum().backward()
                return (torch.zeros_like(gates) if gates.grad is None else gates.grad).float().cpu()
            gating = self.space.gating(self.model, self.at)
            gating.differentiate()
            with gating.ready({})():
                (self.model.predict(batch.x, batch.t, condition) * weights.to(self.model.device)).sum().backward()
        return self.space.join(gating.slopes())[None]


def _norm(x: Tensor) -> Tensor:
    """Return the length (B, 1, 1, 1) of every row of x (B, ...)."""
    return x.flatten(1).norm(dim=1).reshape(-1, 1, 1, 1)


def concept(sketcher: Sketcher, latents: NoisyLatents, progress: Progress | None = None) -> Quadratic:
    """Return what is left of a concept: CAD's erase objective J = E |eps(x, c) - eps(x, base)|^2 to second order.

    eps(x, base) is the intact model's (`latents.base`), as in arXiv 2412.02542, eq. 5. UserError for latents without.
    """
    if latents.base is None:
        raise UserError("interactions need noisy latents with 'base': use trajectories")
    condition = sketcher.model.encode([latents.prompt])
    return sketcher.rows(latents, condition, latents.base, progress)


def retained(
    sketcher: Sketcher, latents: Sequence[NoisyLatents], progress: Callable[[int, int], Any] | None = None
) -> Quadratic:
    """Return how far the predictions move that are to stay: for each prompt its own and the base prompt's.

    latents: of every prompt to keep, at its own points. The mean over prompts, half for each of the two predictions.
    """
    parts: list[Quadratic] = []
    for number, each in enumerate(latents):
        for prompt in (each.prompt, each.base_prompt):
            parts.append(sketcher.rows(each, sketcher.model.encode([prompt])))
        if progress:
            progress(number + 1, len(latents))
    return total(parts).times(1 / len(parts))
