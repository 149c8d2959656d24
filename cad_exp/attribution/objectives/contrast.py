"""Contrast: J of the concept minus J of what is to stay, so that a component that serves both gets little credit."""

from collections.abc import Callable, Sequence
from copy import copy
from functools import reduce
from typing import Any, Self, TypeVar

import torch
from torch import Tensor

from cad_exp.attribution.objectives import OBJECTIVES
from cad_exp.attribution.objectives.base import Objective, Slopes
from cad_exp.data.noisy_latents import NoisyLatents
from cad_exp.interventions.ablation import Ablation
from cad_exp.interventions.spaces import ComponentSpace
from cad_exp.models.pipeline import DiffusionModel, Progress
from cad_exp.utils.errors import UserError, choose

Answer = TypeVar("Answer")
OF = "projection"  # the formula of its parts, where none is named
NOTHING = "objective contrast needs something to keep: give objective.retain=[PROMPT, ...]"


class Contrast(Objective):
    """J = J_concept - sum_i weight_i J_retained_i / n: one formula (`of`) for the concept and each of n others.

    Each J is taken over the noisy latents of its own prompt, along that prompt's own trajectories: the points that the
    model comes by when it draws that thing. At the concept's points a retained prompt would be asked about half-drawn
    pictures of another thing, which says nothing of how it is drawn.

    concept, retained: objectives of one kind. weight: one for all, or one for each; UserError for another number.
    An ablation is one change of the model: what replaces a component (`ablation`) is the concept's everywhere.
    """

    name, one_prompt, parts = "contrast", False, ("of", OF)

    def __init__(self, concept: Objective, retained: Sequence[Objective], weight: float | Sequence[float] = 1.0):
        if not retained:
            raise UserError(NOTHING)
        weights = list(weight) if isinstance(weight, Sequence) else [weight] * len(retained)
        if len(weights) != len(retained):
            raise UserError(
                f"objective.weight has {len(weights)} numbers for {len(retained)} prompts to retain: give one for "
                "each, or one for all"
            )
        self.members = [concept, *(part.with_ablation(concept.ablation) for part in retained)]
        self.shares = [1.0, *(-float(number) / len(retained) for number in weights)]
        self.model, self.latents, self.batch_size = concept.model, concept.latents, concept.batch_size
        self.concept, self.neutral, self.ablation = concept.concept, concept.neutral, concept.ablation
        self.progress, self.weighting = concept.progress, concept.weighting

    @classmethod
    def formula(cls, settings: dict[str, Any]) -> type[Objective]:
        """Return the class of its parts. UserError for an unknown name, and for a contrast."""
        others = [name for name in OBJECTIVES if name != cls.name]
        part: type[Objective] = OBJECTIVES.get(choose(settings.get("of", OF), others, "objective in objective.of"))
        return part

    @classmethod
    def make(
        cls,
        model: DiffusionModel,
        latents: NoisyLatents,
        batch_size: int,
        progress: Progress | None,
        context: dict[str, Any],
        of: str = OF,
        weight: float | list[float] = 1.0,
        retain: list[str] | None = None,
        base_prompt: str = "",
        **settings: Any,
    ) -> "Contrast":
        """Make one objective `of` for the concept's noisy latents, and one for each of context["retained"].

        retain and base_prompt say which noisy latents the stages sample; here the noisy latents themselves count.
        """
        part = cls.formula({"of": of})
        concept = part.make(model, latents, batch_size, progress, context, **settings)
        others = [
            part.make(model, kept, batch_size, None, part.about(context, kept.prompt), **settings)
            for kept in context.get("retained") or ()
        ]
        return cls(concept, others, weight)

    @classmethod
    def check_settings(cls, settings: dict[str, Any], context: dict[str, Any], retained: list[str]) -> None:
        """Raise UserError if the parts do not fit the context, or if there is nothing to retain."""
        part = cls.formula(settings)
        part.check(context)
        if not retained:
            raise UserError(NOTHING)
        for prompt in retained:
            part.about(context, prompt)

    def value(self, space: ComponentSpace | None = None, gates: Tensor | None = None) -> float:
        """Return J at gates (n,) of the space; without them that of the intact model."""
        values = self._ask(lambda part: part.value(space, gates))
        return sum(share * value for share, value in zip(self.shares, values, strict=True))

    def values(self, space: ComponentSpace, gates: Tensor) -> Tensor:
        """Return J (A,) fp64 on the CPU of A ablations at once: gates (A, n)."""
        values = self._ask(lambda part: part.values(space, gates))
        return reduce(torch.add, (share * value for share, value in zip(self.shares, values, strict=True)))

    def value_and_gradient(self, space: ComponentSpace, gates: Tensor) -> tuple[float, Slopes]:
        """Return J at gates (n,) and dJ/dgate by place, fp32 on the CPU."""
        total: Slopes = {}
        value = 0.0
        found = iter(self._ask(lambda part: part.value_and_gradient(space, gates)))
        for share, (own, gradient) in zip(self.shares, found, strict=True):
            value += share * own
            for name, slope in gradient.items():
                total[name] = total[name].add_(slope, alpha=share) if name in total else share * slope
        return value, total

    def with_ablation(self, ablation: str | Ablation) -> Self:
        """Return this contrast, where something else takes an ablated component's place in every part."""
        first, *retained = self.members
        first = first.with_ablation(ablation)
        found = self._of([first, *(part.with_ablation(first.ablation) for part in retained)])
        found.ablation = first.ablation
        return found

    def deal(self, number: int, seed: int = 0) -> Sequence[Objective]:
        """Deal every part's noisy latents: a contrast on each of `number` shares, or fewer where a part has fewer."""
        number = min(number, *(len(part.latents) for part in self.members))
        return [self._of(parts) for parts in zip(*(part.deal(number, seed) for part in self.members), strict=True)]

    def _of(self, parts: Sequence[Objective]) -> Self:
        """Return the same contrast of other parts."""
        dealt = copy(self)
        dealt.members, dealt.latents = list(parts), parts[0].latents
        return dealt

    def _ask(self, question: Callable[[Objective], Answer]) -> list[Answer]:
        """Return every part's answer; tell their common progress as one over the concept's own noisy latents."""
        if self.progress is None:
            return [question(part.reporting(None)) for part in self.members]
        listener, told = self.progress, 0
        sizes, answers = [len(part.latents) for part in self.members], []
        for number, part in enumerate(self.members):

            def report(done: int, total: int, before: int = sum(sizes[:number]), size: int = sizes[number]) -> None:
                nonlocal told
                rounds = total // size  # `values` counts every noisy latent once per ablation
                now = (before * rounds + done) * sizes[0] // sum(sizes)
                if now > told:  # a listener takes a number that does not grow for the next round's
                    told = now
                    listener(now, rounds * sizes[0])

            answers.append(question(part.reporting(report)))
        return answers
