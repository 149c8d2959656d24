"""What gates are to lose and to keep: the one sum that every method of finding gates minimises.

minimise  strength * E w |eps(x, c; g) - target|^2 + E w |change of what is to stay|^2   over the gates g = 1 + d
with      target = eps(x, i) - beyond * (eps(x, c) - eps(x, i)), at noisy latents x of the concept's images; i is the
          prompt whose images take the concept's place: the base prompt, or another that is to stay; a style is
          asked for with several things, c, and each takes its own place without the style, i
          w = |d x0 / d eps|^p, by which an early step, which decides the picture, counts for more than a late one
          what is to stay: eps(x, r; g) and eps(x, ""; g), at noisy latents x of each prompt r that is to stay;
          a prompt that moves more than the others counts for more (`balance`)
          and where the erased images are to land: target = eps(x, i) at noisy latents x of that prompt's own images

Both sums are in units of the intact concept's own distance from prompt i. `beyond` leads past prompt i: images
are guided, and guidance enlarges what is left of the concept (negative guidance, as in ESD, arXiv 2303.07345). The
first sum is CAD's erase objective (arXiv 2412.02542, eq. 5) for beyond = 0 and the base prompt. Past prompt i lie
pictures that the model was never trained on; along its own trajectories the concept is led to it, and no further.
A prompt that is near to the concept as what replaces it: arXiv 2501.18950.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, TensorDataset

from cad_exp.attribution.gates.balance import Balance
from cad_exp.attribution.objectives.weighting import reach
from cad_exp.data.noisy_latents import NoisyLatents
from cad_exp.interventions.edit import Edit
from cad_exp.interventions.gating import Ready
from cad_exp.interventions.spaces import ComponentSpace
from cad_exp.models.families.condition import Condition
from cad_exp.models.pipeline import DiffusionModel
from cad_exp.utils import distributed
from cad_exp.utils.errors import UserError

Progress = Callable[[int, int], Any]
LOOKED = 96  # noisy latents of the concept, at which what is to stay is compared with it
Rows = tuple[Tensor, Tensor]  # numbers of noisy latents of the concept, and of what is to stay


@dataclass(frozen=True)
class Points:
    """Noisy latents of several prompts, one prompt after another, with the targets of P predictions at each.

    parts: of each prompt x, t and P targets, as they lie in its noisy latents: for Stable Diffusion a copy is large.
    prompts: (M, P) numbers of rows of the condition, one for each prediction.
    """

    parts: ConcatDataset[tuple[Tensor, ...]]
    prompts: Tensor

    def __len__(self) -> int:
        return len(self.prompts)

    def at(self, asked: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return x (B, ...), t (B,), targets (B, ...) and prompts (B,) of predictions m P + p, numbered from 0."""
        rows, which = asked // self.prompts.shape[1], asked % self.prompts.shape[1]
        found = [self.parts[row] for row in rows.tolist()]
        targets = [each[2 + number] for each, number in zip(found, which.tolist(), strict=True)]
        x, t = (torch.stack([each[tensor] for each in found]) for tensor in (0, 1))
        return x, t, torch.stack(targets), self.prompts[rows, which]


class Task:
    """What is asked of the gates of one space: to lose a concept, and to keep everything else.

    concept: noisy latents of each prompt that asks for the concept, with `base` and `cond`. retained: of each prompt
    that is to stay, the same. landing: of the prompts whose images take the place of the concept's, in their order.
    instead: the prompt that takes it where nothing lands; None: each one's base prompt.
    beyond: how far past that prompt's prediction the target lies, 1 as far as the concept's is from it. power: p.
    batch_size: predictions of a pass, at most. Components of text encoders have all prompts encoded anew.
    """

    def __init__(
        self,
        model: DiffusionModel,
        space: ComponentSpace,
        concept: Sequence[NoisyLatents],
        retained: Sequence[NoisyLatents],
        beyond: float = 0.0,
        power: float = 0.0,
        batch_size: int = 64,
        landing: Sequence[NoisyLatents] = (),
        instead: str | None = None,
    ):
        if not retained:
            raise UserError("edit.retain names only the concept itself: add a prompt to keep")
        self.model, self.space, self.batch_size = model, space, batch_size
        asked = [each.prompt for each in concept]
        of_retained = (prompt for each in retained for prompt in (each.prompt, each.base_prompt))
        self.names = list(dict.fromkeys([*asked, *of_retained]))
        rows = {name: row for row, name in enumerate(self.names)}
        told = space.gating(model, torch.ones(space.n)).text
        self.condition = None if told else model.encode(self.names)  # None: it depends on the gates
        self.power = float(power)
        parts, squared = [], []
        for number, each in enumerate(concept):
            base, cond = _both(each)
            place = landing[number].prompt if landing else each.base_prompt if instead is None else instead
            if place != each.base_prompt:
                base = predicted(model, each, place, batch_size)
            target = cond - base
            squared.append(target.square().flatten(1).mean(1) * weights(model, each.t, power))
            if not squared[-1].any():
                raise UserError(f"nothing in the model tells {each.prompt!r} from {place!r}")
            target.mul_(-beyond).add_(base)  # in place: it is as large as the noisy latents
            parts.append(TensorDataset(each.x, each.t, target))
        self.unit = float(torch.cat(squared).mean())
        parts += [TensorDataset(each.x, each.t, _both(each)[1]) for each in landing]
        self.concept = _points(parts, [[rows[prompt]] for prompt in (*asked, *asked[: len(landing)])])
        self.retained = _points(
            [TensorDataset(each.x, each.t, *_both(each)) for each in retained],
            [[rows[each.base_prompt], rows[each.prompt]] for each in retained],
        )
        self.groups = torch.cat([torch.full((len(each),), number) for number, each in enumerate(retained)])

    @torch.no_grad()
    def distances(self, points: Points) -> Tensor:
        """Return the squared distance of each prediction from its target (M, P), in units of the intact concept's.

        The model is taken as it is, with whatever edit is applied to it now.
        """
        passes = torch.arange(points.prompts.numel()).split(self.batch_size)
        return torch.cat([self._squared(points, each).cpu() for each in passes]).view(len(points), -1)

    def draws(self, steps: int, batch: int, seed: int) -> Iterator[Rows]:
        """Yield for each step the numbers of so many noisy latents of the concept, and of what is to stay."""
        generator, (concept, retained) = torch.Generator().manual_seed(seed), (len(self.concept), len(self.retained))
        for _ in range(steps):
            first = torch.randint(concept, (min(batch, concept),), generator=generator)
            yield first, torch.randint(retained, (min(batch, retained),), generator=generator)

    @torch.no_grad()
    def value(self, rows: Rows, gates: Tensor, strength: float) -> float:
        """Return the whole sum at the gates (n,), as `slopes` does."""
        with self.space.gated(self.model, gates):
            return self._sum(rows, strength, nullcontext, lambda _: None)

    def slopes(
        self, rows: Rows, gates: Tensor, strength: float, balance: Balance | None = None
    ) -> tuple[float, Tensor]:
        """Return the whole sum and its slopes (n,) at the gates.

        rows: the numbers of noisy latents drawn of the concept and of what is to stay. Processes share them.
        balance: what each of the latter counts; it is told how far they moved. None: all alike.
        """
        gating = self.space.gating(self.model, gates)
        gating.differentiate()
        if (gates == 1).all():
            balance = None  # the intact model moves nothing: what looks like it is rounding
        with torch.enable_grad():
            value = self._sum(rows, strength, gating.ready({}), Tensor.backward, balance)
        return value, self.space.join(gating.slopes())

    def _sum(
        self,
        rows: Rows,
        strength: float,
        ready: Ready,
        each: Callable[[Tensor], Any],
        balance: Balance | None = None,
    ) -> float:
        """Return the whole sum; `each` is called with each part of it. Processes share the noisy latents."""
        value, (concept, retained) = 0.0, rows
        counts = torch.ones(len(retained)) if balance is None else balance.weights(retained)
        parts = ((self.concept, concept, torch.full((len(concept),), strength)), (self.retained, retained, counts))
        for points, drawn, weight in parts:
            number = points.prompts.shape[1]
            moved = torch.zeros(len(drawn), number, dtype=torch.float64, device=self.model.device)
            mine = torch.tensor(distributed.share(list(range(len(drawn)))), dtype=torch.long)
            asked = (mine[:, None] * number + torch.arange(number)).flatten()
            for part in asked.split(self.batch_size) if len(asked) else ():
                with ready():
                    squared = self._squared(points, drawn[part // number] * number + part % number)
                    each((squared * weight[part // number].to(squared.device)).sum() / (len(drawn) * number))
                moved.view(-1)[part] = squared.detach().double()
            distributed.add_up([moved])
            moved = moved.cpu()
            value += float((moved.mean(1) * weight.double()).sum()) / len(drawn)
            if points is self.retained and balance is not None:
                balance.saw(drawn, moved.mean(1))
        return value

    def _squared(self, points: Points, asked: Tensor) -> Tensor:
        """Return the squared distances (B,) of predictions m P + p; the model is gated already."""
        x, t, targets, prompts = (each.to(self.model.device) for each in points.at(asked))
        apart = (self.model.predict(x, t, self._condition(prompts)) - targets).float()
        squared: Tensor = apart.square().flatten(1).mean(1) * weights(self.model, t, self.power) / self.unit
        return squared

    def _condition(self, numbers: Tensor) -> Condition:
        """Return what the text encoders, as they are now, make of the prompts of these numbers."""
        if self.condition is not None:
            return self.condition[numbers.to(self.model.device)]
        needed, places = numbers.unique(return_inverse=True)
        encoded = self.model.encode([self.names[number] for number in needed.tolist()], differentiable=True)
        return encoded[places.to(self.model.device)]


def weights(model: DiffusionModel, t: Tensor, power: float) -> Tensor:
    """Return w (B,) at times t: how far a change of the prediction moves the clean latents, to that power."""
    return reach(model, t) ** power


@torch.no_grad()
def predicted(model: DiffusionModel, latents: NoisyLatents, prompt: str, batch_size: int) -> Tensor:
    """Return the model's predictions (M, ...) for a prompt, at noisy latents of another."""
    condition, device = model.encode([prompt]), model.device
    parts = zip(latents.x.split(batch_size), latents.t.split(batch_size), strict=True)
    found = [model.predict(x.to(device), t.to(device), condition[[0] * len(x)]).float().cpu() for x, t in parts]
    return torch.cat(found)


def distances(
    model: DiffusionModel, latents: NoisyLatents, prompts: Sequence[str], power: float = 0.0, batch_size: int = 64
) -> list[float]:
    """Return the mean squared distance of the model's predictions for each prompt from those for the latents' own.

    latents: with `cond`; LOOKED of them are looked at, evenly. power: p, as of `Task`.
    """
    _, cond = _both(few := latents[torch.linspace(0, len(latents) - 1, LOOKED).long().unique()])
    counts = weights(model, few.t, power)
    apart = ((predicted(model, few, prompt, batch_size) - cond).square().flatten(1).mean(1) for prompt in prompts)
    return [(each * counts).mean().item() for each in apart]


def edit_of(space: ComponentSpace, gates: Tensor, least: float, meta: dict[str, Any]) -> Edit:
    """Return the edit of gates (n,); changes of less than `least` are left out, and so it may change nothing."""
    selected = ((gates - 1).abs() >= least).nonzero()[:, 0]
    facts = {"sign": "positive", "scope": "global", "requested": space.n}
    return space.intervention(selected, gates[selected], facts | meta)


def _both(latents: NoisyLatents) -> tuple[Tensor, Tensor]:
    """Return the intact model's predictions for the base prompt and for the prompt. UserError if they lack."""
    if latents.base is None or latents.cond is None:
        raise UserError("gates are trained at noisy latents of trajectories, with 'base' and 'cond'")
    return latents.base.float(), latents.cond.float()


def _points(parts: Sequence[TensorDataset], prompts: Sequence[Sequence[int]]) -> Points:
    """Return parts with the prompts that are asked at each."""
    asked = [torch.tensor(each).expand(len(part), -1) for part, each in zip(parts, prompts, strict=True)]
    return Points(ConcatDataset(parts), torch.cat(asked))
