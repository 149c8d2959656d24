"""Removal: what takes the place of an ablated component's activation, and the hooks that put it there.

A Linear whose columns or weights W carry gates g gives (W g) x + (W (1 - g)) r + bias, where r replaces its input x:
  zero  r = 0: the component is silent, as in an edited checkpoint (CAD, arXiv 2412.02542)
  mean  r = the input's mean over the probes and their tokens under the concept's prompt (mean ablation): the component
        still gives what it gives on average, but tells nothing of this probe
  base  r = the input at the same probe and token under the base prompt (resample ablation, "activation patching"): all
        that the concept's prompt changed is taken back
"""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import cycle
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cad_exp.data.noisy_latents import Probes
from cad_exp.interventions.text_encoders import Networks, is_text
from cad_exp.models.families.condition import Condition
from cad_exp.models.pipeline import DiffusionModel
from cad_exp.utils.errors import UserError, choose

REMOVALS = ("zero", "mean", "base")
# module -> what replaces its input at each of its calls in a pass: (in,) for all rows, or (B, ..., in)
Replacements = dict[str, list[Tensor]]


class Removal:
    """One way of removing, for one concept's probes: `name` is zero, mean or base; UserError for another.

    concept, neutral: the conditions, of one row each, of the probes' prompt and base prompt.
    """

    def __init__(
        self, name: str, model: DiffusionModel, probes: Probes, batch_size: int, concept: Condition, neutral: Condition
    ):
        self.name = choose(name, REMOVALS, "removal")
        self.model, self.probes, self.batch_size = model, probes, batch_size
        self.concept, self.neutral = concept, neutral
        self.means: dict[str, Tensor] = {}

    @torch.no_grad()
    def replacements(self, batch: Probes, modules: Iterable[str]) -> Replacements:
        """What replaces the modules' inputs at these probes, on the model's device; nothing for `zero`."""
        modules = list(modules)
        if self.name == "zero":
            return {}
        if any(is_text(module) for module in modules):
            raise UserError(f"removal {self.name} is not for text encoders: use objective.removal=zero")
        if self.name == "base":
            return self._inputs(batch, self.neutral, modules)
        self._measure([module for module in modules if module not in self.means])
        return {module: [self.means[module]] for module in modules if module in self.means}

    def _measure(self, modules: list[str]) -> None:
        """Means (in,) fp32 of the intact modules' inputs, streamed over all probes; kept for later calls."""
        # Every process sees all probes: were they shared out, a process that asks for a mean alone would wait forever.
        sums: dict[str, tuple[Tensor, int]] = {}
        for batch in self.probes.batches(self.batch_size) if modules else ():
            for module, seen in self._inputs(batch, self.concept, modules).items():
                total, number = sums.get(module, (0, 0))
                flat = torch.cat([x.flatten(0, -2) for x in seen])
                sums[module] = total + flat.sum(0, dtype=torch.float64), number + len(flat)
        self.means |= {module: (total / number).float() for module, (total, number) in sums.items()}

    def _inputs(self, batch: Probes, condition: Condition, modules: list[str]) -> Replacements:
        """Inputs of the intact modules at these probes, call by call; a module that is never reached has none."""
        seen: Replacements = {}
        with ExitStack() as hooks:
            for name in modules:
                module = self.model.denoiser.get_submodule(name)
                note = lambda _, args, name=name: seen.setdefault(name, []).append(args[0])  # noqa: E731
                hooks.callback(module.register_forward_pre_hook(note).remove)
            self.model.predict(batch.x, batch.t, condition)
        return seen


def of_rows(replacements: Replacements, rows: Tensor) -> Replacements:
    """The replacements of some rows (R,) of a batch."""
    return {name: [x if x.ndim == 1 else x[rows] for x in calls] for name, calls in replacements.items()}


@contextmanager
def gated_inputs(
    denoiser: nn.Module | Networks, gates: dict[str, Tensor], replacements: Replacements
) -> Iterator[None]:
    """Meanwhile, each row of a batch has its own column gates: module name -> (rows, in); x becomes g x + (1 - g) r.

    Raises UserError if a module does not see one row per sample.
    """

    def mask(name: str, gate: Tensor, args: tuple) -> tuple:
        x = args[0]
        _one_row_each(name, x, gate)
        gate = gate.to(x.dtype).view(len(gate), *[1] * (x.ndim - 2), -1)
        masked = x * gate
        if name in turns:
            masked = masked + (1 - gate) * next(turns[name]).to(x.dtype)
        return (masked, *args[1:])

    turns = {name: cycle(calls) for name, calls in replacements.items()}
    with ExitStack() as hooks:
        for name, gate in gates.items():
            module = denoiser.get_submodule(name)
            hook = module.register_forward_pre_hook(lambda _, args, name=name, gate=gate: mask(name, gate, args))
            hooks.callback(hook.remove)
        yield


@contextmanager
def added_outputs(denoiser: nn.Module, removed: dict[str, Tensor], replacements: Replacements) -> Iterator[None]:
    """Meanwhile, modules add to their outputs what their removed weights W (1 - g) (out, in) make of r.

    Differentiable in the removed weights. Raises UserError if a module does not see one row per sample.
    """

    def add(name: str, args: tuple, output: Tensor) -> Tensor:
        replacement = next(turns[name])
        if replacement.ndim > 1:
            _one_row_each(name, args[0], replacement)
        return output + F.linear(replacement, removed[name].to(replacement.dtype)).to(output.dtype)

    turns = {name: cycle(calls) for name, calls in replacements.items()}
    with ExitStack() as hooks:
        for name in replacements:
            hook: Any = lambda _, args, output, name=name: add(name, args, output)  # noqa: E731
            hooks.callback(denoiser.get_submodule(name).register_forward_hook(hook).remove)
        yield


def _one_row_each(name: str, x: Tensor, rows: Tensor) -> None:
    if len(x) != len(rows):
        raise UserError(f"module '{name}' does not see one row per sample: call value() for every ablation instead")
