"""Objectives: J(gates), one number that says how strongly the model expresses the concept; higher is stronger.

Gates multiply weights: 1 leaves a component as it is, 0 ablates it. So a positive score w dJ/dw says that the component
helps the concept, a negative one that it suppresses it (CAD, arXiv 2412.02542).
"""

from collections.abc import Callable

import torch
from torch import Tensor

from cad_exp.errors import UserError, choose
from cad_exp.model import DiffusionModel, Progress
from cad_exp.probes import Probes

Gates = dict[str, Tensor]


class Objective:
    """J over probes: the mean of `loss` over all probes, streamed in batches.

    gates: module name -> (in,) column gates or (out, in) weight gates of that Linear; a missing module is intact.
    """

    name: str
    probes_kind: str  # which sampler suits it: "trajectory" or "noised"
    needs: tuple[str, ...] = ()

    def __init__(self, model: DiffusionModel, probes: Probes, batch_size: int = 16, progress: Progress | None = None):
        for name in self.needs:
            if getattr(probes, name) is None:
                raise UserError(f"objective {self.name} needs probes with '{name}': use {self.probes_kind} probes")
        if not len(probes):
            raise UserError(f"objective {self.name} has no probes: sample at least one")
        self.model, self.probes, self.batch_size, self.progress = model, probes, int(batch_size), progress
        self.concept, self.neutral = model.encode([probes.prompt, probes.base_prompt]).split(1)

    def loss(self, batch: Probes, predict: Callable[[Probes, Tensor], Tensor]) -> Tensor:
        """J of every probe, (B,); `predict(batch, states)` is the gated network's output (B, C, h, w) fp32."""
        raise NotImplementedError

    @torch.no_grad()
    def value(self, gates: Gates | None = None) -> float:
        """J(gates), averaged over the probes."""
        return self._run(gates or {}, differentiate=False)

    def value_and_gradient(self, gates: Gates) -> tuple[float, Gates]:
        """J(gates) and dJ/dgate per module, fp32 on the CPU, of the gates' own shapes."""
        leaves = {
            name: gate.detach().to(self.model.device, torch.float32, copy=True).requires_grad_()
            for name, gate in gates.items()
        }
        with torch.enable_grad():
            value = self._run(leaves, differentiate=True)
        # A gate that the network never reached has no gradient: its effect is zero.
        return value, {n: (torch.zeros_like(g) if g.grad is None else g.grad).cpu() for n, g in leaves.items()}

    def _run(self, gates: Gates, differentiate: bool) -> float:
        total, done = 0.0, 0
        for batch in self.probes.batches(self.batch_size):
            weights = self._weights(gates)

            def predict(batch: Probes, states: Tensor, weights: dict[str, Tensor] = weights) -> Tensor:
                return self.model.predict(batch.x, batch.t, states.expand(len(batch), -1, -1), weights)

            loss = self.loss(batch.to(self.model.device), predict).sum() / len(self.probes)
            if differentiate:
                loss.backward()
            total += loss.item()
            done += len(batch)
            if self.progress:
                self.progress(done, len(self.probes))
        return total

    def _weights(self, gates: Gates) -> dict[str, Tensor]:
        """Effective weights, multiplied in fp32 so that half-precision models still get fp32 scores."""
        weights = {}
        for name, gate in gates.items():
            weight = self.model.denoiser.get_submodule(name).weight.detach()
            weights[f"{name}.weight"] = (weight.float() * gate.to(weight.device, torch.float32)).to(weight.dtype)
        return weights


class Erase(Objective):
    """CAD-Erase: J = E || eps(x_t, c, t; w) - stopgrad(eps(x_t, base, t)) ||^2, the mean over dimensions."""

    name, probes_kind, needs = "erase", "trajectory", ("base",)

    def loss(self, batch: Probes, predict: Callable[[Probes, Tensor], Tensor]) -> Tensor:
        return (predict(batch, self.concept) - batch.base).square().flatten(1).mean(1)


class Amplify(Objective):
    """CAD-Amplify: J = -E || target - eps(x_t, c, t; w) ||^2, the negative denoising loss on images of the concept."""

    name, probes_kind, needs = "amplify", "noised", ("target",)

    def loss(self, batch: Probes, predict: Callable[[Probes, Tensor], Tensor]) -> Tensor:
        return -(predict(batch, self.concept) - batch.target).square().flatten(1).mean(1)


class Projection(Objective):
    """J = E <eps(x, c; w) - eps(x, base; w), d> / |d|^2, d = the intact model's guidance direction at the probe.

    1 for the intact model, 0 when nothing of the concept's direction is left.
    """

    name, probes_kind, needs = "projection", "trajectory", ("base", "cond")

    def loss(self, batch: Probes, predict: Callable[[Probes, Tensor], Tensor]) -> Tensor:
        direction = (batch.cond - batch.base).flatten(1)
        change = (predict(batch, self.concept) - predict(batch, self.neutral)).flatten(1)
        # A probe where the prompts agree (d = 0) has no direction to lose; the floor makes it count 0 and not NaN.
        return (change * direction).sum(1) / direction.square().sum(1).clamp_min(1e-12)


OBJECTIVES = {cls.name: cls for cls in (Erase, Amplify, Projection)}


def make_objective(
    name: str, model: DiffusionModel, probes: Probes, batch_size: int = 16, progress: Progress | None = None
) -> Objective:
    """An objective by name (`erase`, `amplify`, `projection`). UserError for an unknown name or unfit probes."""
    return OBJECTIVES[choose(name, OBJECTIVES, "objective")](model, probes, batch_size, progress)
