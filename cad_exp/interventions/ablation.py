"""Ablation: what takes the place of an ablated component's activation.

A Linear whose columns or weights W carry gates g gives (W g) x + (W (1 - g)) r + bias, where r replaces its input x; a
direction d of an activation h with a gate g gives h + (g - 1) <h - r, d> d:
  zero  r = 0: the component is silent, as in an edited checkpoint (CAD, arXiv 2412.02542)
  mean  r = the activation's mean over the probes and their tokens under the concept's prompt (mean ablation): the
        component still gives what it gives on average, but tells nothing of this probe
  base  r = the activation at the same probe and token under the base prompt (resample ablation, "activation patching"):
        all that the concept's prompt changed is taken back
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from cad_exp.data.noisy_latents import Probes
from cad_exp.interventions.gating import Replacements, Tap, watched
from cad_exp.interventions.networks import Networks, is_text
from cad_exp.models.families.condition import Condition
from cad_exp.models.pipeline import DiffusionModel
from cad_exp.utils.errors import UserError, choose

REMOVALS = ("zero", "mean", "base")


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
        self.means: dict[Tap, Tensor] = {}

    @torch.no_grad()
    def replacements(self, batch: Probes, taps: Iterable[Tap]) -> Replacements:
        """What replaces the activations at these probes, by module, on the model's device; nothing for `zero`."""
        taps = list(taps)
        if self.name == "zero":
            return {}
        if any(is_text(tap.module) for tap in taps):
            raise UserError(f"removal {self.name} is not for text encoders: use objective.removal=zero")
        if self.name == "base":
            return {tap.module: seen for tap, seen in self._seen(batch, self.neutral, taps).items()}
        self._measure([tap for tap in taps if tap not in self.means])
        return {tap.module: [self.means[tap]] for tap in taps if tap in self.means}

    def _measure(self, taps: list[Tap]) -> None:
        """Means (d,) fp32 of the intact model's activations, streamed over all probes; kept for later calls."""
        # Every process sees all probes: were they shared out, a process that asks for a mean alone would wait forever.
        sums: dict[Tap, tuple[Tensor, int]] = {}
        for batch in self.probes.batches(self.batch_size) if taps else ():
            for tap, seen in self._seen(batch, self.concept, taps).items():
                flat = torch.cat([x.flatten(0, -2) for x in seen])
                total = flat.sum(0, dtype=torch.float64)
                before, number = sums.get(tap, (torch.zeros_like(total), 0))
                sums[tap] = before + total, number + len(flat)
        self.means |= {tap: (total / number).float() for tap, (total, number) in sums.items()}

    def _seen(self, batch: Probes, condition: Condition, taps: list[Tap]) -> dict[Tap, list[Tensor]]:
        """Activations of the intact model at these probes, call by call; a module that is never reached has none."""
        seen: dict[Tap, list[Tensor]] = {}
        with watched(Networks.of(self.model), taps, lambda tap, x: seen.setdefault(tap, []).append(x)):
            self.model.predict(batch.x, batch.t, condition)
        return seen


def of_rows(replacements: Replacements, rows: Tensor) -> Replacements:
    """The replacements of some rows (R,) of a batch."""
    return {name: [x if x.ndim == 1 else x[rows] for x in calls] for name, calls in replacements.items()}
