"""Ablation: what takes the place of an ablated component's activation.

A Linear whose columns or weights W carry gates g gives (W g) x + (W (1 - g)) r + bias, where r replaces its input x; a
direction d of an activation h with a gate g gives h + (g - 1) <h - r, d> d:
  zero  r = 0: the component is silent, as in an edited checkpoint (CAD, arXiv 2412.02542)
  mean  r = the activation's mean over the noisy latents and their tokens under the concept's prompt (mean ablation):
        the component still gives what it gives on average, but tells nothing of this noisy latent
  resample  r = the activation at the same noisy latent and token under the base prompt (resample ablation, "activation
        patching"): all that the concept's prompt changed is taken back
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from cad_exp.data.noisy_latents import NoisyLatents
from cad_exp.interventions.gating import Replacements, Tap, watched
from cad_exp.interventions.networks import Networks, is_text
from cad_exp.models.families.condition import Condition
from cad_exp.models.pipeline import DiffusionModel
from cad_exp.utils.errors import UserError, choose

ABLATIONS = ("zero", "mean", "resample")


class Ablation:
    """One way of removing, for one concept's noisy latents: `name` is zero, mean or resample; UserError for another.

    concept, neutral: the conditions, of one row each, of the noisy latents' prompt and base prompt.
    """

    def __init__(
        self,
        name: str,
        model: DiffusionModel,
        latents: NoisyLatents,
        batch_size: int,
        concept: Condition,
        neutral: Condition,
    ):
        self.name = choose(name, ABLATIONS, "ablation")
        self.model, self.latents, self.batch_size = model, latents, batch_size
        self.concept, self.neutral = concept, neutral
        self.means: dict[Tap, Tensor] = {}

    @torch.no_grad()
    def replacements(self, batch: NoisyLatents, taps: Iterable[Tap]) -> Replacements:
        """Return what replaces the activations at these noisy latents, by module; nothing for `zero`."""
        taps = list(taps)
        if self.name == "zero":
            return {}
        if any(is_text(tap.module) for tap in taps):
            raise UserError(f"ablation {self.name} is not for text encoders: use objective.ablation=zero")
        if self.name == "resample":
            return {tap.module: seen for tap, seen in self._seen(batch, self.neutral, taps).items()}
        self._measure([tap for tap in taps if tap not in self.means])
        return {tap.module: [self.means[tap]] for tap in taps if tap in self.means}

    def _measure(self, taps: list[Tap]) -> None:
        """Means (d,) fp32 of the intact model's activations, streamed over all noisy latents; kept for later calls."""
        # Every process sees all noisy latents: were they shared out, a process that asks for a mean alone would wait
        # forever.
        sums: dict[Tap, tuple[Tensor, int]] = {}
        for batch in self.latents.batches(self.batch_size) if taps else ():
            for tap, seen in self._seen(batch, self.concept, taps).items():
                flat = torch.cat([x.flatten(0, -2) for x in seen])
                total = flat.sum(0, dtype=torch.float64)
                before, number = sums.get(tap, (torch.zeros_like(total), 0))
                sums[tap] = before + total, number + len(flat)
        self.means |= {tap: (total / number).float() for tap, (total, number) in sums.items()}

    def _seen(self, batch: NoisyLatents, condition: Condition, taps: list[Tap]) -> dict[Tap, list[Tensor]]:
        """Return the intact model's activations at these noisy latents, call by call; none of one never reached."""
        seen: dict[Tap, list[Tensor]] = {}
        with watched(Networks.of(self.model), taps, lambda tap, x: seen.setdefault(tap, []).append(x)):
            self.model.predict(batch.x, batch.t, condition)
        return seen


def of_rows(replacements: Replacements, rows: Tensor) -> Replacements:
    """Return the replacements of some rows (R,) of a batch."""
    return {name: [x if x.ndim == 1 else x[rows] for x in calls] for name, calls in replacements.items()}
