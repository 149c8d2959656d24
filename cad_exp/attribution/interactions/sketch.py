"""A sketch of how gates move a prediction: the Gauss-Newton curvature of all components from few backward passes.

eps(1 + d) = eps(1) + A d + ..., A = d eps / d gates (elements x n) at every noisy latent. With random signs r over the
elements, E[(r'A d)^2] = |A d|^2. So the rows r'A, one backward pass each, estimate for every d how far the prediction
moves, and F'F the matrix A'A of all pairs of components.

1. Draw signs for every noisy latent, and run the gated network on a batch.
2. Where rows can have gates of their own, one backward pass gives a row of F for every noisy latent of the batch.
   Where they cannot (single weights), it gives one row for the whole batch: as good on average, with more noise.
3. The distance from a target, u + A d with u the intact distance, is taken apart: along u it is known exactly, by one
   more backward pass; the signs sketch only what is left. So the sketch cannot promise less than nothing.
4. Few rows leave directions in which nothing seems to move: the sketch is shrunk towards its diagonal.

Where only a part of a prediction counts (weights of timesteps, low frequencies), `counted` takes that part. It is
symmetric, so signs that have gone through it pull back what counts: r'(C A) = (C r)'A.

Source: Gauss-Newton (Schraudolph, Neural Computation 14, 2002) by random projections (Hutchinson 1989; Johnson and
Lindenstrauss 1984). The objective is CAD's erase (arXiv 2412.02542, eq. 5) to second order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from cad_exp.attribution.interactions.quadratic import Quadratic, shrunk, total
from cad_exp.data.noisy_latents import NoisyLatents
from cad_exp.interventions.spaces import ComponentSpace
from cad_exp.models.families.condition import Condition
from cad_exp.models.pipeline import DiffusionModel
from cad_exp.utils import distributed
from cad_exp.utils.errors import UserError

Progress = Callable[[int, int], Any]
Counted = Callable[[NoisyLatents, Tensor], Tensor]  # of differences (..., M, C, h, w) at M noisy latents, what counts


class Sketcher:
    """Sketches predictions of one model under gates of one space.

    at: gates (n,) around which they are; None: the intact model's. projections: random ones for every noisy latent.
    counted: a symmetric linear map of differences between predictions; None: all of them counts.
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
        counted: Counted | None = None,
    ):
        if space.gating(model, torch.ones(space.n)).text:
            raise UserError("interactions are of the denoiser's components: choose other granularity.kinds")
        self.model, self.space, self.projections, self.seed = model, space, int(projections), int(seed)
        self.batch_size, self.at = int(batch_size), torch.ones(space.n) if at is None else at.float()
        self.counted: Counted = counted or (lambda latents, difference: difference)

    def sketch(
        self,
        latents: NoisyLatents,
        condition: Condition,
        apart_from: Tensor | None = None,
        progress: Progress | None = None,
    ) -> Tensor:
        """Return rows F (rows, n): |F d|^2 estimates the mean square by which the prediction moves at d = gates - at.

        latents: M noisy latents. condition: one row, for all. apart_from: (M, ...) directions of the prediction in
        which movements do not count.
        """
        signs = self._signs(latents).float()
        if apart_from is not None:
            along = apart_from / _norm(apart_from)
            signs = signs - (signs * along).flatten(2).sum(2).reshape(*signs.shape[:2], 1, 1, 1) * along
        scale = (latents.x[0].numel() * len(latents) * self.projections) ** -0.5
        rows: Tensor = self._pulled(latents, condition, self.counted(latents, signs), progress) * scale
        return rows

    def along(self, latents: NoisyLatents, condition: Condition, distance: Tensor) -> Quadratic:
        """Return the mean square of the distance (M, ...), of what counts, that is left at d along itself."""
        scale = (latents.x[0].numel() * len(latents)) ** -0.5
        along = (distance / _norm(distance))[None]
        size = self.batch_size if self.space.per_row else 1
        rows = self._pulled(latents, condition, self.counted(latents, along), size=size)
        return Quadratic.of(rows * scale, _norm(distance).flatten() * scale)

    @torch.no_grad()
    def predicted(self, latents: NoisyLatents, condition: Condition) -> Tensor:
        """Return the predictions (M, ...) at d = 0, on the CPU."""
        parts: list[Tensor] = []
        with self.space.gated(self.model, self.at):
            for batch in latents.batches(self.batch_size):
                parts.append(self.model.predict(batch.x, batch.t, condition).cpu())
        return torch.cat(parts)

    def _signs(self, latents: NoisyLatents) -> Tensor:
        """Return random signs (projections, M, ...), the same whatever the batches are."""
        generator = torch.Generator().manual_seed(self.seed)
        drawn = torch.randint(0, 2, (self.projections, *latents.x.shape), generator=generator, dtype=torch.int8)
        signs: Tensor = drawn * 2 - 1
        return signs

    def _pulled(
        self,
        latents: NoisyLatents,
        condition: Condition,
        weights: Tensor,
        progress: Progress | None = None,
        size: int | None = None,
    ) -> Tensor:
        """Return d<weights, eps>/d gates (k * rows, n) on the CPU for weights (k, M, ...), a row for each noisy latent.

        Where rows cannot have gates of their own, there is one for each batch of `size`, for all its noisy latents.
        """
        size = size or self.batch_size
        batches = list(enumerate(latents.batches(size)))
        per = [len(batch) if self.space.per_row else 1 for _, batch in batches]
        found = torch.zeros(len(weights), sum(per), self.space.n)
        own = distributed.share(batches)
        for done, (number, batch) in enumerate(own, 1):
            first, start = sum(per[:number]), number * size
            for row, weight in zip(found, weights[:, start : start + len(batch)], strict=True):
                row[first : first + per[number]] = self._slopes(batch.to(self.model.device), condition, weight)
            if progress:
                progress(done * distributed.size(), len(batches))
        distributed.add_up([found])
        return found.flatten(0, 1)

    def _slopes(self, batch: NoisyLatents, condition: Condition, weights: Tensor) -> Tensor:
        """Return d<weights, eps>/d gates of a batch: (B, n), or (1, n) for all its rows together."""
        weights = weights.to(self.model.device)
        with torch.enable_grad():
            if self.space.per_row:
                gates = self.at.to(self.model.device).expand(len(batch), -1).clone().requires_grad_()
                with self.space.gated(self.model, gates):
                    (self.model.predict(batch.x, batch.t, condition) * weights).sum().backward()
                return (torch.zeros_like(gates) if gates.grad is None else gates.grad).float().cpu()
            gating = self.space.gating(self.model, self.at)
            gating.differentiate()
            with gating.ready({})():
                (self.model.predict(batch.x, batch.t, condition) * weights).sum().backward()
        return self.space.join(gating.slopes())[None]


def _norm(x: Tensor) -> Tensor:
    """Return the length (B, 1, 1, 1) of every row of x (B, ...)."""
    lengths: Tensor = torch.linalg.vector_norm(x.flatten(1), dim=1)
    return lengths.clamp_min(1e-12).reshape(-1, 1, 1, 1)


def concept(sketcher: Sketcher, latents: NoisyLatents, progress: Progress | None = None) -> Quadratic:
    """Return what is left of a concept: CAD's erase objective J = E |eps(x, c) - eps(x, base)|^2 to second order.

    eps(x, base) is the intact model's (`latents.base`), as in arXiv 2412.02542, eq. 5. UserError for latents without.
    """
    if latents.base is None:
        raise UserError("interactions need noisy latents with 'base': use trajectories")
    condition = sketcher.model.encode([latents.prompt])
    distance = sketcher.counted(latents, sketcher.predicted(latents, condition) - latents.base)
    rest, _ = shrunk(sketcher.sketch(latents, condition, distance, progress))
    return total([sketcher.along(latents, condition, distance), rest])
