"""edit=joint: the gates of all components at once, by true gradients of the concept and of all that is to stay.

minimise  strength * E w |eps(x, c; g) - target|^2 + E w |change of what is to stay|^2   over the gates g = 1 + d
with      target = eps(x, base) - beyond * (eps(x, c) - eps(x, base)), at noisy latents x of the concept's images
          w = |d x0 / d eps|^p, by which an early step, which decides the picture, counts for more than a late one
          what is to stay: eps(x, r; g) and eps(x, ""; g), at noisy latents x of each prompt r that is to stay
subject to lowest <= d <= highest: at -1 a component is switched off, at -2 reversed, at +1 doubled.

Both sums are in units of the intact concept's own distance from its base prompt. Steps:

1. Start at the intact model, or at the gates of a weaker edit.
2. Draw noisy latents of the concept and of what is to stay; predict all of them in one pass under the gates.
3. One backward pass gives the slopes of all gates; the first is what first-order scores are made of.
4. Take a step (Adam, Kingma and Ba, arXiv 1412.6980), and go back into the box. Repeat.

Because every step is taken where the gates are now, it counts interactions of any order. `beyond` leads past the base
prompt: images are guided, and guidance enlarges what is left of the concept (negative guidance, as in ESD,
arXiv 2303.07345). The first sum is CAD's erase objective (arXiv 2412.02542, eq. 5) for beyond = 0. Gates as the only
parameters that are trained: Minimalist Concept Erasure (arXiv 2507.13386).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cad_exp.data.noisy_latents import NoisyLatents
from cad_exp.interventions.edit import Edit
from cad_exp.interventions.spaces import ComponentSpace
from cad_exp.models.pipeline import DiffusionModel
from cad_exp.utils import distributed
from cad_exp.utils.errors import UserError

Progress = Callable[[int, int], Any]
BETAS = (0.9, 0.99)  # a hundred steps are too few for Adam's usual memory of a thousand


@dataclass(frozen=True)
class Points:
    """Noisy latents x, t of several prompts, and the targets (M, P, ...) of P predictions at each.

    prompts: row -> P numbers of rows of the condition, one for each prediction.
    """

    x: Tensor
    t: Tensor
    targets: Tensor
    prompts: Tensor

    def __len__(self) -> int:
        return len(self.x)


class Task:
    """What is asked of the gates of one space: to lose a concept, and to keep everything else.

    concept: noisy latents of the concept, with `base` and `cond`. retained: of each prompt that is to stay, the same.
    beyond: how far past the base prompt's prediction the target lies, 1 as far as the concept's is from it. power: p.
    Raises UserError for components of text encoders, on which the prompts themselves depend.
    """

    def __init__(
        self,
        model: DiffusionModel,
        space: ComponentSpace,
        concept: NoisyLatents,
        retained: Sequence[NoisyLatents],
        beyond: float = 0.0,
        power: float = 0.0,
    ):
        if space.gating(model, torch.ones(space.n)).text:
            raise UserError("gates are trained for the denoiser's components: choose other granularity.kinds")
        if not retained:
            raise UserError("edit.retain names only the concept itself: add a prompt to keep")
        self.model, self.space = model, space
        names = list(
            dict.fromkeys([concept.prompt, *(p for each in retained for p in (each.prompt, each.base_prompt))])
        )
        rows = {name: row for row, name in enumerate(names)}
        self.condition = model.encode(names)
        base, cond = _both(concept)
        self.power = float(power)
        self.unit = 1.0
        self.unit = float(((cond - base).square().flatten(1).mean(1) * self._weights(concept.t)).mean())
        if not self.unit:
            raise UserError(f"nothing in the model tells {concept.prompt!r} from {concept.base_prompt!r}")
        target = (base - beyond * (cond - base))[:, None]
        self.concept = Points(concept.x, concept.t, target, _rows(len(concept), [rows[concept.prompt]]))
        parts = [torch.stack(_both(each), 1) for each in retained]
        asked = [_rows(len(each), [rows[each.base_prompt], rows[each.prompt]]) for each in retained]
        self.retained = Points(
            torch.cat([each.x for each in retained]),
            torch.cat([each.t for each in retained]),
            torch.cat(parts),
            torch.cat(asked),
        )

    @torch.no_grad()
    def distances(self, points: Points, batch_size: int = 64) -> Tensor:
        """Return the squared distance of each prediction from its target (M, P), in units of the intact concept's.

        The model is taken as it is, with whatever edit is applied to it now.
        """
        found = []
        for start in range(0, len(points), batch_size):
            found.append(self._squared(points, torch.arange(start, min(start + batch_size, len(points)))).cpu())
        return torch.cat(found)

    def slopes(self, rows: tuple[Tensor, Tensor], gates: Tensor, strength: float) -> tuple[float, Tensor]:
        """Return the whole sum and its slopes (n,) at the gates.

        rows: the numbers of noisy latents drawn of the concept and of what is to stay. Processes share them.
        """
        gating = self.space.gating(self.model, gates)
        gating.differentiate()
        sizes = [len(each) for each in rows]
        concept, retained = (torch.tensor(distributed.share(each.tolist()), dtype=torch.long) for each in rows)
        with torch.enable_grad(), gating.ready({})():
            value = strength * self._squared(self.concept, concept).sum() / sizes[0]
            value = value + self._squared(self.retained, retained).mean(1).sum() / sizes[1]
            if value.requires_grad:  # not where other processes have all rows
                value.backward()
        total = torch.tensor([value.item()], dtype=torch.float64, device=self.model.device)
        distributed.add_up([total])
        return total.item(), self.space.join(gating.slopes())

    def _squared(self, points: Points, rows: Tensor) -> Tensor:
        """Return the squared distances (B, P) of some rows' predictions; the model is gated already."""
        device, number = self.model.device, points.prompts.shape[1]
        x, t = points.x[rows].to(device), points.t[rows].to(device)
        if not len(rows):
            return torch.zeros(0, number, device=device)
        condition = self.condition[points.prompts[rows].flatten().to(device)]
        found = self.model.predict(x.repeat_interleave(number, 0), t.repeat_interleave(number), condition)
        apart = (found.unflatten(0, (len(rows), number)) - points.targets[rows].to(device)).float()
        squared: Tensor = apart.square().flatten(2).mean(2) * self._weights(t)[:, None] / self.unit
        return squared

    def _weights(self, t: Tensor) -> Tensor:
        """Return w (B,) at times t: how far a change of the prediction moves the clean latents, to the power p."""
        one = torch.ones(len(t), 1, 1, 1, device=t.device)
        moved = self.model.predicted_x0(one, t, one) - self.model.predicted_x0(one, t, 0 * one)
        weights: Tensor = moved.flatten().abs().float() ** self.power
        return weights


class Joint:
    """The method: gates are the only parameters, and are trained within a box."""

    @staticmethod
    def gates(
        task: Task,
        strength: float,
        lowest: float = -2.0,
        highest: float = 0.0,
        steps: int = 120,
        rate: float = 0.03,
        batch: int = 12,
        seed: int = 0,
        start: Tensor | None = None,
        progress: Progress | None = None,
    ) -> Tensor:
        """Return the gates (n,) that erase and keep best.

        Args:
            task: what is asked of them.
            strength: what is left of the concept weighs so much against what moves elsewhere; above 0.
            lowest: least change of a gate, -1 switches off; below 0.
            highest: greatest change of a gate, 1 doubles; 0 or more.
            steps: each of one forward and one backward pass of 3 * batch predictions.
            rate: of the first half of the steps; it falls to 0 in the second half.
            batch: noisy latents of the concept, and as many of what is to stay, for each step.
            seed: of their choice.
            start: gates (n,) to begin with; None: the intact model's.
            progress: called with the steps done, and their number.
        """
        gates = torch.ones(task.space.n) if start is None else start.clone().float()
        adam = torch.optim.Adam([gates], lr=rate, betas=BETAS)
        generator = torch.Generator().manual_seed(seed)
        for step in range(steps):
            adam.param_groups[0]["lr"] = rate * min(1.0, 2 * (1 - step / steps))
            concept, retained = (
                torch.randint(len(points), (min(batch, len(points)),), generator=generator)
                for points in (task.concept, task.retained)
            )
            _, gates.grad = task.slopes((concept, retained), gates, strength)
            adam.step()
            gates.clamp_(1 + lowest, 1 + highest)
            if progress:
                progress(step + 1, steps)
        return gates


def edit_of(space: ComponentSpace, gates: Tensor, least: float, meta: dict[str, Any]) -> Edit:
    """Return the edit of gates (n,); changes of less than `least` are left out. UserError if none is left."""
    selected = ((gates - 1).abs() >= least).nonzero()[:, 0]
    if not len(selected):
        raise UserError(
            f"no component is changed by edit.least={least} or more: a larger edit.strength changes more, and so do "
            "more edit.steps"
        )
    facts = {"sign": "positive", "scope": "global", "requested": space.n}
    return space.intervention(selected, gates[selected], facts | meta)


def _both(latents: NoisyLatents) -> tuple[Tensor, Tensor]:
    """Return the intact model's predictions for the base prompt and for the prompt. UserError if they lack."""
    if latents.base is None or latents.cond is None:
        raise UserError("gates are trained at noisy latents of trajectories, with 'base' and 'cond'")
    return latents.base.float(), latents.cond.float()


def _rows(number: int, prompts: list[int]) -> Tensor:
    return torch.tensor(prompts).expand(number, -1)
