"""An objective: J(gates), one number that says how strongly the model expresses the concept; higher is stronger.

What gates mean is said by the space (interventions/spaces): 1 leaves a component as it is, 0 ablates it. So a positive
score dJ/dgate says that the component helps the concept, a negative one that it suppresses it (CAD, arXiv 2412.02542).
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from copy import copy
from functools import partial
from typing import Any, Self

import torch
from torch import Tensor

from cad_exp.attribution.objectives.weighting import Weighting
from cad_exp.data.noisy_latents import NoisyLatents
from cad_exp.interventions.ablation import Ablation, of_rows
from cad_exp.interventions.gating import IntactPass, Ready
from cad_exp.interventions.networks import is_text
from cad_exp.interventions.spaces import ComponentSpace, Gating, RowGating
from cad_exp.models.families.condition import Condition
from cad_exp.models.pipeline import DiffusionModel, Progress
from cad_exp.utils import distributed
from cad_exp.utils.errors import UserError
from cad_exp.utils.registry import fitting

Slopes = dict[str, Tensor]  # dJ/dgate by place, as the space's `split` has them
Predict = Callable[[NoisyLatents, Condition], Tensor]


class Objective:
    """J over noisy latents: the weighted mean of `loss` over all noisy latents, streamed in batches.

    Gates are of the components of a space. Those in a text encoder act on the prompts: they are encoded anew, where the
    model's own predictions (`NoisyLatents`) are not.
    ablation: what takes an ablated component's place: zero, mean or resample (cad_exp/interventions/ablation.py).
    weighting: which timesteps count for more (cad_exp/attribution/objectives/weighting.py).
    """

    name: str
    latents_kind: str = "trajectory"  # which sampler suits it: "trajectory" or "noised"
    needs: tuple[str, ...] = ()  # tensors that its noisy latents must have
    context: tuple[str, ...] = ()  # arguments that its own config cannot give: "judge", "kind", "label"
    asks: tuple[str, ...] = ()  # of a judge: "clip" (image and prompt), "logits" (of the concept's label)
    parts: tuple[str, str] | None = None  # the setting that names the objective of its parts, and what it is if unset
    flat_at_base: bool = False  # whether J is least, without a slope, at the base prompt's run
    distance: bool = False  # whether J is the squared distance of the prediction from the base prompt's, which is given
    one_prompt: bool = True  # whether there is one run of a concept that could be patched into one of a base prompt

    def __init__(
        self,
        model: DiffusionModel,
        latents: NoisyLatents,
        batch_size: int = 16,
        progress: Progress | None = None,
        ablation: str = "zero",
        weighting: str = "uniform",
    ):
        for name in self.needs:
            if getattr(latents, name) is None:
                raise UserError(
                    f"objective {self.name} needs noisy latents with '{name}': use {self.latents_kind} noisy latents"
                )
        if not len(latents):
            raise UserError(f"objective {self.name} has no noisy latents: sample at least one")
        self.model, self.latents, self.batch_size, self.progress = model, latents, int(batch_size), progress
        self.concept, self.neutral = model.encode([latents.prompt, latents.base_prompt]).split(1)
        self.ablation = Ablation(ablation, model, latents, self.batch_size, self.concept, self.neutral)
        self.weighting = Weighting(weighting, model, latents)

    @classmethod
    def make(
        cls,
        model: DiffusionModel,
        latents: NoisyLatents,
        batch_size: int,
        progress: Progress | None,
        context: dict[str, Any],
        **settings: Any,
    ) -> "Objective":
        """Make the objective from the settings of its config, and from those things of the context that it takes."""
        given = {key: context[key] for key in cls.context if key in context} | settings
        return cls(model, latents, batch_size, progress, **fitting(cls, given, f"objective {cls.name}", 4))

    @classmethod
    def formula(cls, settings: dict[str, Any]) -> "type[Objective]":
        """Return the class whose loss counts: itself, unless it is made of others."""
        return cls

    @classmethod
    def check(cls, context: dict[str, Any]) -> None:
        """Raise UserError if this objective cannot do with the context, before any noisy latent is sampled."""

    @classmethod
    def check_settings(cls, settings: dict[str, Any], context: dict[str, Any], retained: list[str]) -> None:
        """Raise UserError if a config's group `objective` does not fit the context and the retained prompts."""
        cls.check(context)

    @classmethod
    def about(cls, context: dict[str, Any], prompt: str) -> dict[str, Any]:
        """Return the context of the same objective for another prompt than the concept's. UserError for none."""
        return dict(context)

    def counted(self, latents: NoisyLatents, difference: Tensor) -> Tensor:
        """Return what counts of differences between predictions (..., M, C, h, w) at M noisy latents.

        Of an objective that is a distance, J is the mean square of it.
        """
        return difference * self.weighting(latents.t).sqrt()[:, None, None, None].to(difference.device)

    def loss(self, batch: NoisyLatents, predict: Predict) -> Tensor:
        """Return J (B,) of noisy latents; `predict(batch, condition)` gives the gated network's output (B, C, h, w)."""
        raise NotImplementedError

    @torch.no_grad()
    def value(self, space: ComponentSpace | None = None, gates: Tensor | None = None) -> float:
        """Return J at gates (n,) of the space, averaged over the noisy latents; without them the intact model's."""
        gating = None if space is None or gates is None else space.gating(self.model, gates.detach())
        return self._run(gating, differentiate=False)

    @torch.no_grad()
    def values(self, space: ComponentSpace, gates: Tensor) -> Tensor:
        """Return J (A,) fp64 on the CPU of A different ablations at once, averaged over the noisy latents.

        gates: (A, n), one row per ablation, of a space whose rows can have gates of their own. Equals A calls of
        `value`, but the rows of one forward pass belong to different ablations, and each pass starts at the first
        module that its ablations change; for that, one intact pass of at most `batch_size` noisy latents is kept in
        memory.
        Raises UserError if the gates do not fit.
        """
        if gates.ndim != 2 or gates.shape[1] != space.n:
            raise UserError(f"values() needs gates (ablations, {space.n}), not {tuple(gates.shape)}")
        ablations, gating = len(gates), space.row_gating(self.model, gates.detach())
        totals, done = torch.zeros(ablations, dtype=torch.float64), 0
        for chunk in self.latents.batches(self.batch_size):
            passes: list[IntactPass] = []  # one for every prediction that the loss asks for
            chunk = chunk.to(self.model.device)
            removed = self.ablation.replacements(chunk, gating.taps)
            self.loss(chunk, partial(self._keep, modules=gating.changed, passes=passes))
            # Sorted by their first change, so that a batch of ablations has as much in common as can be.
            starts, order = passes[0].starts(gating.changed).sort(stable=True)
            for first in range(0, ablations * len(chunk), self.batch_size):
                rows = torch.arange(first, min(first + self.batch_size, ablations * len(chunk)))
                ablation, latent = order[rows // len(chunk)], rows % len(chunk)
                part = gating[ablation]
                own = {tap.module: removed[tap.module] for tap in part.taps if tap.module in removed}
                start = float(starts[first // len(chunk)])
                predict = self._ablated(part, part.ready(of_rows(own, latent)), passes, start, latent)
                losses = self.loss(chunk[latent], predict) * self.weighting(chunk.t)[latent]
                totals.index_add_(0, ablation, losses.double().cpu() / len(self.latents))
                done += len(rows)
                if self.progress:
                    self.progress(done, ablations * len(self.latents))
        return totals

    def _ablated(
        self, part: RowGating, ready: Ready, passes: Sequence[IntactPass], start: float, latent: Tensor
    ) -> Predict:
        """Return a `predict` whose rows have their own gates, and which computes only what comes after `start`."""
        replayed = iter(passes)

        def predict(batch: NoisyLatents, condition: Condition) -> Tensor:
            with next(replayed).replay(start, latent):
                return self._predict(batch, condition, part.text, ready, len(batch))

        return predict

    def _keep(
        self, batch: NoisyLatents, condition: Condition, modules: Iterable[str], passes: list[IntactPass]
    ) -> Tensor:
        """Return the intact network's prediction; append what its modules returned to `passes`."""
        passes.append(IntactPass())
        with passes[-1].record(self.model.denoiser, [name for name in modules if not is_text(name)]):
            prediction = self.model.predict(batch.x, batch.t, condition)
        passes[-1].began |= {name: -1 for name in modules if is_text(name)}  # before anything that could be replayed
        return prediction

    def _predict(self, batch: NoisyLatents, condition: Condition, text: bool, ready: Ready, rows: int = 1) -> Tensor:
        """Return the network's output under gates; text: whether they change what the text encoders say."""
        with ready():
            if text:
                prompt = self.latents.prompt if condition is self.concept else self.latents.base_prompt
                condition = self.model.encode([prompt] * rows, differentiable=True)
            return self.model.predict(batch.x, batch.t, condition)

    def value_and_gradient(self, space: ComponentSpace, gates: Tensor) -> tuple[float, Slopes]:
        """Return J at gates (n,) and dJ/dgate by place (`space.join` makes (n,) of it), fp32 on the CPU."""
        gating = space.gating(self.model, gates.detach())
        gating.differentiate()
        with torch.enable_grad():
            value = self._run(gating, differentiate=True)
        return value, gating.slopes()

    def reporting(self, progress: Progress | None) -> Self:
        """Return this objective, whose progress goes to another listener."""
        part = copy(self)
        part.progress = progress
        return part

    def with_ablation(self, ablation: str | Ablation) -> Self:
        """Return this objective, where something else takes an ablated component's place."""
        if ablation in (self.ablation, self.ablation.name):
            return self
        part = copy(self)
        if isinstance(ablation, str):
            ablation = Ablation(ablation, self.model, self.latents, self.batch_size, self.concept, self.neutral)
        part.ablation = ablation
        return part

    def deal(self, number: int, seed: int = 0) -> "Sequence[Objective]":
        """Deal the noisy latents, shuffled, in turn: this objective on each of `number` shares; no share is empty."""
        order = torch.randperm(len(self.latents), generator=torch.Generator().manual_seed(seed))
        return [self._on(order[first::number]) for first in range(min(number, len(order)))]

    def _on(self, rows: Tensor) -> "Objective":
        """Return this objective on some noisy latents; what replaces ablated components stays that of all of them."""
        part = copy(self)
        part.latents = self.latents[rows.sort().values]
        return part

    def _run(self, gating: Gating | None, differentiate: bool) -> float:
        """Return J under gates, or intact; gradients add up in the gating."""
        total, done = 0.0, 0
        for batch in distributed.share(list(self.latents.batches(self.batch_size))):
            batch = batch.to(self.model.device)
            ready: Ready = nullcontext
            if gating is not None:
                ready = gating.ready(self.ablation.replacements(batch, gating.taps))
            predict = partial(self._predict, text=gating is not None and gating.text, ready=ready)
            loss = (self.loss(batch, predict) * self.weighting(batch.t)).sum() / len(self.latents)
            if differentiate:
                loss.backward()
            total += loss.item()
            done += len(batch)
            if self.progress:
                self.progress(done * distributed.size(), len(self.latents))
        sums = torch.tensor([total], dtype=torch.float64, device=self.model.device)
        distributed.add_up([sums])
        return sums.item()
