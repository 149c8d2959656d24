"""A sketch of how gates move a prediction: the Gauss-Newton curvature of all components from few backward passes.

eps(1 + d) = eps(1) + A d + ..., A = d eps / d gates (elements x n) at every noisy latent. With random signs r over the
elements, E[(r'A d)^2] = |A d|^2. So the rows r'A, one backward pass each, estimate for every d how far the prediction
moves, and F'F the matrix A'A of all pairs of components.

1. Draw signs for every noisy latent, and run the gated network on a batch.
2. Where rows can have gates of their own, one backward pass gives a row of F for every noisy latent of the batch.
3. Where they cannot (single weights), it gives one row for the whole batch: as good on average, with more noise.

Source: Gauss-Newton (Schraudolph, Neural Computation 14, 2002) by random projections (Hutchinson 1989; Johnson and
Lindenstrauss 1984). The objective is CAD's erase (arXiv 2412.02542, eq. 5) to second order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from cad_exp.attribution.interactions.quadratic import Quadratic
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
        at d = 0, from which the distance has neither a constant nor a linear part.
        """
        signs = self._signs(latents)
        batches = list(enumerate(latents.batches(self.batch_size)))
        own, total = distributed.share(batches), len(batches) * (self.projections + (target is not None))
        per, size = self._rows_of(latents), latents.x[0].numel()
        factor = torch.zeros(self.projections * sum(per), self.space.n)
        linear, constant, done = torch.zeros(self.space.n, dtype=torch.float64), 0.0, 0
        for number, batch in own:
            start = number * self.batch_size
            rows = slice(start, start + len(batch))
            first = sum(per[:number])
            for each in range(self.projections):
                found, predicted = self._pulled(batch, condition, signs[each, rows])
                at = each * sum(per) + first
                factor[at : at + len(found)] = found
                done += 1
                if progress:
                    progress(done * distributed.size(), total)
            if target is not None:
                error = (predicted.cpu() - target[rows]) / (size * len(latents))
                constant += float(error.double().square().sum()) * size * len(latents)
                linear += 2 * self._pulled(batch, condition, error)[0].double().sum(0)
                done += 1
                if progress:
                    progress(done * distributed.size(), total)
        sums = [factor, linear, torch.tensor([constant], dtype=torch.float64)]
        distributed.add_up(sums)
        factor /= (size * len(latents) * self.projections) ** 0.5
        return Quadratic(float(sums[2]), linear, factor)

    def _rows_of(self, latents: NoisyLatents) -> list[int]:
        """Return how many rows one projection of each batch gives."""
        sizes = [len(batch) for batch in latents.batches(self.batch_size)]
        return sizes if self.space.per_row else [1] * len(sizes)

    def _signs(self, latents: NoisyLatents) -> Tensor:
        """Return random signs (projections, M, ...), the same whatever the batches are."""
        generator = torch.Generator().manual_seed(self.seed)
        drawn = torch.randint(0, 2, (self.projections, *latents.x.shape), generator=generator, dtype=torch.int8)
        return drawn * 2 - 1

    def _pulled(self, batch: NoisyLatents, condition: Condition, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Return d<weights, eps>/d gates, (B, n) or (1, n) for all rows together, and eps (B, ...)."""
        batch = batch.to(self.model.device)
        with torch.enable_grad():
            if self.space.per_row:
                gates = self.at.to(self.model.device).expand(len(batch), -1).clone().requires_grad_()
                with self.space.gated(self.model, gates):
                    predicted = self.model.predict(batch.x, batch.t, condition)
                    (predicted * weights.to(predicted)).sum().backward()
                slopes = torch.zeros_like(gates) if gates.grad is None else gates.grad
                return slopes.float().cpu(), predicted.detach()
            gating = self.space.gating(self.model, self.at)
            gating.differentiate()
            with gating.ready({})():
                predicted = self.model.predict(batch.x, batch.t, condition)
                (predicted * weights.to(predicted)).sum().backward()
        return self.space.join(gating.slopes())[None], predicted.detach()


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
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total.times(1 / len(parts))
