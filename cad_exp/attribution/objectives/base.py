"""An objective: J(gates), one number that says how strongly the model expresses the concept; higher is stronger.

Gates multiply weights: 1 leaves a component as it is, 0 ablates it. So a positive score w dJ/dw says that the component
helps the concept, a negative one that it suppresses it (CAD, arXiv 2412.02542).
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from copy import copy
from typing import Any

import torch
from torch import Tensor

from cad_exp.data.noisy_latents import Probes
from cad_exp.interventions.ablation import Removal, Replacements, added_outputs, gated_inputs, of_rows
from cad_exp.interventions.prefix_cache import IntactPass
from cad_exp.interventions.text_encoders import Networks, is_text, other_weights
from cad_exp.models.families.condition import Condition
from cad_exp.models.pipeline import DiffusionModel, Progress
from cad_exp.utils import distributed
from cad_exp.utils.errors import UserError
from cad_exp.utils.registry import fitting

Gates = dict[str, Tensor]
Predict = Callable[[Probes, Condition], Tensor]


class Objective:
    """J over probes: the mean of `loss` over all probes, streamed in batches.

    gates: module name -> (in,) column gates or (out, in) weight gates of that Linear; a missing module is intact. Gates
    in a text encoder act on the prompts: they are encoded anew, where the model's own predictions (`Probes`) are not.
    removal: what takes an ablated component's place: zero, mean or base (cad_exp/interventions/ablation.py).
    """

    name: str
    probes_kind: str = "trajectory"  # which sampler suits it: "trajectory" or "noised"
    needs: tuple[str, ...] = ()  # tensors that its probes must have
    context: tuple[str, ...] = ()  # arguments that its own config cannot give: "judge", "kind", "label"
    asks: tuple[str, ...] = ()  # of a judge: "clip" (image and prompt), "logits" (of the concept's label)
    parts: tuple[str, str] | None = None  # the setting that names the objective of its parts, and what it is if unset

    def __init__(
        self,
        model: DiffusionModel,
        probes: Probes,
        batch_size: int = 16,
        progress: Progress | None = None,
        removal: str = "zero",
    ):
        for name in self.needs:
            if getattr(probes, name) is None:
                raise UserError(f"objective {self.name} needs probes with '{name}': use {self.probes_kind} probes")
        if not len(probes):
            raise UserError(f"objective {self.name} has no probes: sample at least one")
        self.model, self.probes, self.batch_size, self.progress = model, probes, int(batch_size), progress
        self.concept, self.neutral = model.encode([probes.prompt, probes.base_prompt]).split(1)
        self.removal = Removal(removal, model, probes, self.batch_size, self.concept, self.neutral)

    @classmethod
    def make(
        cls,
        model: DiffusionModel,
        probes: Probes,
        batch_size: int,
        progress: Progress | None,
        context: dict[str, Any],
        **settings: Any,
    ) -> "Objective":
        """Make the objective from the settings of its config, and from those things of the context that it takes."""
        given = {key: context[key] for key in cls.context if key in context} | settings
        return cls(model, probes, batch_size, progress, **fitting(cls, given, f"objective {cls.name}", 4))

    @classmethod
    def formula(cls, settings: dict[str, Any]) -> "type[Objective]":
        """The class whose loss counts: itself, unless it is made of others."""
        return cls

    @classmethod
    def check(cls, context: dict[str, Any]) -> None:
        """Raises UserError if this objective cannot do with the context, before any probe is sampled."""

    @classmethod
    def check_settings(cls, settings: dict[str, Any], context: dict[str, Any], retained: list[str]) -> None:
        """Raises UserError if the group `objective` of a config does not fit the context and the retained prompts."""
        cls.check(context)

    @classmethod
    def about(cls, context: dict[str, Any], prompt: str) -> dict[str, Any]:
        """The context of the same objective for another prompt than the concept's. UserError if there is none."""
        return dict(context)

    def loss(self, batch: Probes, predict: Predict) -> Tensor:
        """J of every probe, (B,); `predict(batch, condition)` is the gated network's output (B, C, h, w) fp32."""
        raise NotImplementedError

    @torch.no_grad()
    def value(self, gates: Gates | None = None) -> float:
        """J(gates), averaged over the probes."""
        return self._run(self._weights(gates or {}), differentiate=False)

    @torch.no_grad()
    def values(self, gates: Gates) -> Tensor:
        """J (A,) fp64 on the CPU of A different ablations at once, averaged over the probes.

        gates: module name -> (A, in) column gates, one row per ablation; a missing module is intact. Equals A calls of
        `value`, but the rows of one forward pass belong to different ablations, and each pass starts at the first
        module that its ablations change; for that, one intact pass of at most `batch_size` probes is kept in memory.
        Raises UserError if the gates do not fit.
        """
        shapes = {gate.shape[:-1] for gate in gates.values()}
        if len(shapes) != 1 or len(min(shapes)) != 1:
            raise UserError("values() needs column gates (ablations, columns), the same number of ablations per module")
        (ablations,) = shapes.pop()
        gates = {name: gate.to(self.model.device, torch.float32) for name, gate in gates.items()}
        changed = {name: (gate != 1).any(1).cpu() for name, gate in gates.items()}
        totals, done = torch.zeros(ablations, dtype=torch.float64), 0
        for chunk in self.probes.batches(self.batch_size):
            passes: list[IntactPass] = []  # one for every prediction that the loss asks for
            chunk = chunk.to(self.model.device)
            removed = self.removal.replacements(chunk, gates)
            self.loss(chunk, lambda batch, condition, kept=passes: self._keep(batch, condition, gates, kept))
            # Sorted by their first change, so that a batch of ablations has as much in common as can be.
            starts, order = passes[0].starts(changed).sort(stable=True)
            for first in range(0, ablations * len(chunk), self.batch_size):
                rows = torch.arange(first, min(first + self.batch_size, ablations * len(chunk)))
                ablation, probe = order[rows // len(chunk)], rows % len(chunk)
                part = {name: gate[ablation] for name, gate in gates.items() if changed[name][ablation].any()}
                instead = of_rows({name: removed[name] for name in part if name in removed}, probe)
                predict = self._ablated(part, instead, passes, float(starts[first // len(chunk)]), probe)
                losses = self.loss(chunk[probe], predict)
                totals.index_add_(0, ablation, losses.double().cpu() / len(self.probes))
                done += len(rows)
                if self.progress:
                    self.progress(done, ablations * len(self.probes))
        return totals

    def _ablated(
        self, part: Gates, instead: Replacements, passes: "list[IntactPass]", start: float, probe: Tensor
    ) -> Predict:
        """A `predict` each row of which has its own gates, and which computes only what comes after `start`."""
        replayed = iter(passes)
        said = {name: gate for name, gate in part.items() if is_text(name)}
        drawn = {name: gate for name, gate in part.items() if not is_text(name)}

        def predict(batch: Probes, condition: Condition) -> Tensor:
            condition = self._said(condition, said, gated_inputs(self.networks, said, {}), len(batch))
            with next(replayed).replay(start, probe), gated_inputs(self.networks, drawn, instead):
                return self.model.predict(batch.x, batch.t, condition)

        return predict

    def _keep(self, batch: Probes, condition: Condition, gates: Gates, passes: "list[IntactPass]") -> Tensor:
        """The intact network's prediction; what its modules returned is appended to `passes`."""
        passes.append(IntactPass())
        with passes[-1].record(self.model.denoiser, [name for name in gates if not is_text(name)]):
            prediction = self.model.predict(batch.x, batch.t, condition)
        passes[-1].began |= {name: -1 for name in gates if is_text(name)}  # before anything that could be replayed
        return prediction

    def _said(self, condition: Condition, changed: Gates, change: AbstractContextManager, rows: int = 1) -> Condition:
        """The condition as the text encoders give it under a change of theirs, if there is one."""
        if not changed:
            return condition
        prompt = self.probes.prompt if condition is self.concept else self.probes.base_prompt
        with change:
            return self.model.encode([prompt] * rows, differentiable=True)

    @property
    def networks(self) -> Networks:
        return Networks(getattr(self.model, "pipe", None), self.model.denoiser)

    def value_and_gradient(self, gates: Gates) -> tuple[float, Gates]:
        """J(gates) and dJ/dgate per module, fp32 on the CPU, of the gates' own shapes."""
        # The batches add up dJ/d(w gate) in fp32; times w, once at the end, it is dJ/dgate.
        weights = {name: weight.requires_grad_() for name, weight in self._weights(gates).items()}
        with torch.enable_grad():
            value = self._run(weights, differentiate=True)
        grads = {name: self._gate_gradient(name, gate, weights[name].grad) for name, gate in gates.items()}
        distributed.add_up(list(grads.values()))
        return value, {name: grad.cpu() for name, grad in grads.items()}

    def deal(self, number: int, seed: int = 0) -> "list[Objective]":
        """This objective on `number` shares of its probes, shuffled and dealt in turn; on no share without a probe."""
        order = torch.randperm(len(self.probes), generator=torch.Generator().manual_seed(seed))
        return [self._on(order[first::number]) for first in range(min(number, len(order)))]

    def _on(self, rows: Tensor) -> "Objective":
        """This objective on some of its probes; what replaces ablated components stays that of all of them."""
        part = copy(self)
        part.probes = self.probes[rows.sort().values]
        return part

    def weight(self, module: str) -> Tensor:
        """The intact weight (out, in) of a module, fp32 on the CPU."""
        return self._weight(module).float().cpu()

    def _run(self, gated: dict[str, Tensor], differentiate: bool) -> float:
        """J with effective weights (out, in) fp32 per module; their gradients add up in `grad`."""
        total, done = 0.0, 0
        for batch in distributed.share(list(self.probes.batches(self.batch_size))):
            batch = batch.to(self.model.device)
            cast = {name: weight.to(self._weight(name).dtype) for name, weight in gated.items()}
            weights = {f"{name}.weight": weight for name, weight in cast.items() if not is_text(name)}
            said = {name: weight for name, weight in cast.items() if is_text(name)}
            instead = self.removal.replacements(batch, gated)
            removed = {name: self._weight(name).float() - gated[name] for name in instead}

            def predict(batch, condition, weights=weights, said=said, removed=removed, instead=instead) -> Tensor:
                condition = self._said(condition, said, other_weights(self.networks, said))
                with added_outputs(self.model.denoiser, removed, instead):
                    return self.model.predict(batch.x, batch.t, condition, weights)

            loss = self.loss(batch, predict).sum() / len(self.probes)
            if differentiate:
                loss.backward()
            total += loss.item()
            done += len(batch)
            if self.progress:
                self.progress(done * distributed.size(), len(self.probes))
        sums = torch.tensor([total], dtype=torch.float64, device=self.model.device)
        distributed.add_up([sums])
        return sums.item()

    def _weights(self, gates: Gates) -> dict[str, Tensor]:
        """Effective weights per module, in fp32 so that half-precision models still get fp32 scores."""
        device = self.model.device
        return {n: self._weight(n).float() * gate.detach().to(device, torch.float32) for n, gate in gates.items()}

    def _gate_gradient(self, name: str, gate: Tensor, gradient: Tensor | None) -> Tensor:
        """dJ/dgate from dJ/d(w gate), in its place; a module that the network never reached has none: zero effect."""
        if gradient is None:
            return torch.zeros(gate.shape, device=self.model.device)
        return gradient.mul_(self._weight(name)).sum_to_size(gate.shape)

    def _weight(self, name: str) -> Tensor:
        return self.networks.get_submodule(name).weight.detach()
