"""Objectives: J(gates), one number that says how strongly the model expresses the concept; higher is stronger.

Gates multiply weights: 1 leaves a component as it is, 0 ablates it. So a positive score w dJ/dw says that the component
helps the concept, a negative one that it suppresses it (CAD, arXiv 2412.02542).
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from typing import Any

import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

from cad_exp import parallel
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
            passes: list[_IntactPass] = []  # one for every prediction that the loss asks for
            chunk = chunk.to(self.model.device)
            self.loss(chunk, lambda batch, states, kept=passes: self._keep(batch, states, gates, kept))
            # Sorted by their first change, so that a batch of ablations has as much in common as can be.
            starts, order = passes[0].starts(changed).sort(stable=True)
            for first in range(0, ablations * len(chunk), self.batch_size):
                rows = torch.arange(first, min(first + self.batch_size, ablations * len(chunk)))
                ablation, probe = order[rows // len(chunk)], rows % len(chunk)
                part = {name: gate[ablation] for name, gate in gates.items() if changed[name][ablation].any()}
                start, replayed = float(starts[first // len(chunk)]), iter(passes)

                def predict(batch, states, part=part, probe=probe, start=start, replayed=replayed) -> Tensor:
                    with next(replayed).replay(start, probe), _gated(self.model.denoiser, part):
                        return self.model.predict(batch.x, batch.t, states.expand(len(batch), -1, -1))

                losses = self.loss(chunk[probe], predict)
                totals.index_add_(0, ablation, losses.double().cpu() / len(self.probes))
                done += len(rows)
                if self.progress:
                    self.progress(done, ablations * len(self.probes))
        return totals

    def _keep(self, batch: Probes, states: Tensor, gates: Gates, passes: "list[_IntactPass]") -> Tensor:
        """The intact network's prediction; what its modules returned is appended to `passes`."""
        passes.append(_IntactPass())
        with passes[-1].record(self.model.denoiser, gates):
            return self.model.predict(batch.x, batch.t, states.expand(len(batch), -1, -1))

    def value_and_gradient(self, gates: Gates) -> tuple[float, Gates]:
        """J(gates) and dJ/dgate per module, fp32 on the CPU, of the gates' own shapes."""
        # The batches add up dJ/d(w gate) in fp32; times w, once at the end, it is dJ/dgate.
        weights = {name: weight.requires_grad_() for name, weight in self._weights(gates).items()}
        with torch.enable_grad():
            value = self._run(weights, differentiate=True)
        grads = {name: self._gate_gradient(name, gate, weights[name].grad) for name, gate in gates.items()}
        parallel.add_up(list(grads.values()))
        return value, {name: grad.cpu() for name, grad in grads.items()}

    def weight(self, module: str) -> Tensor:
        """The intact weight (out, in) of a module, fp32 on the CPU."""
        return self._weight(module).float().cpu()

    def _run(self, gated: dict[str, Tensor], differentiate: bool) -> float:
        """J with effective weights (out, in) fp32 per module; their gradients add up in `grad`."""
        total, done = 0.0, 0
        for batch in parallel.share(list(self.probes.batches(self.batch_size))):
            weights = {f"{name}.weight": weight.to(self._weight(name).dtype) for name, weight in gated.items()}

            def predict(batch: Probes, states: Tensor, weights: dict[str, Tensor] = weights) -> Tensor:
                return self.model.predict(batch.x, batch.t, states.expand(len(batch), -1, -1), weights)

            loss = self.loss(batch.to(self.model.device), predict).sum() / len(self.probes)
            if differentiate:
                loss.backward()
            total += loss.item()
            done += len(batch)
            if self.progress:
                self.progress(done * parallel.size(), len(self.probes))
        sums = torch.tensor([total], dtype=torch.float64, device=self.model.device)
        parallel.add_up([sums])
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
        return self.model.denoiser.get_submodule(name).weight.detach()


@contextmanager
def _gated(denoiser: nn.Module, gates: Gates) -> Iterator[None]:
    """Meanwhile, each row of a batch has its own column gates: module name -> (rows, in)."""

    def mask(name: str, gate: Tensor, args: tuple) -> tuple:
        x = args[0]
        if len(x) != len(gate):
            raise UserError(f"module '{name}' does not see one row per sample: call value() for every ablation instead")
        return (x * gate.to(x.dtype).view(len(gate), *[1] * (x.ndim - 2), -1), *args[1:])

    with ExitStack() as hooks:
        for name, gate in gates.items():
            module = denoiser.get_submodule(name)
            hook = module.register_forward_pre_hook(lambda _, args, name=name, gate=gate: mask(name, gate, args))
            hooks.callback(hook.remove)
        yield


class _IntactPass:
    """One forward pass of the intact network: when its gated modules began, when its blocks ended, what they gave.

    Exact for every network whose blocks treat each row of a batch alone (eval mode); one called twice is not replayed.
    """

    def __init__(self) -> None:
        self.began: dict[str, int] = {}
        self.ended: dict[nn.Module, tuple[int, Any]] = {}

    @contextmanager
    def record(self, denoiser: nn.Module, gates: Gates) -> Iterator[None]:
        clock, twice = count(), set()

        def begin(name: str) -> None:
            self.began.setdefault(name, next(clock))

        def end(module: nn.Module, args: Any, output: Any) -> None:
            if module in self.ended:
                twice.add(module)
            self.ended[module] = (next(clock), output)

        with ExitStack() as hooks:
            for name in gates:
                hook = denoiser.get_submodule(name).register_forward_pre_hook(lambda *_, name=name: begin(name))
                hooks.callback(hook.remove)
            for module in _blocks(denoiser):
                hooks.callback(module.register_forward_hook(end).remove)
            yield
        self.ended = {module: found for module, found in self.ended.items() if module not in twice}

    def starts(self, changed: dict[str, Tensor]) -> Tensor:
        """The moment (A,) at which each ablation first changes a module: (A,) bool each. inf where none is reached."""
        starts = torch.full(next(iter(changed.values())).shape, torch.inf)
        for name, moment in self.began.items():
            starts[changed[name]] = starts[changed[name]].clamp(max=moment)
        return starts

    @contextmanager
    def replay(self, start: float, rows: Tensor) -> Iterator[None]:
        """Meanwhile, blocks that ended before `start` return what they did for these rows (R,), without computing."""
        blocks = {module: output for module, (moment, output) in self.ended.items() if moment < start}
        try:
            for module, output in blocks.items():
                module.forward = lambda *_, output=output, **__: _take(output, rows)
            yield
        finally:
            for module in blocks:
                vars(module).pop("forward", None)


def _blocks(denoiser: nn.Module) -> list[nn.Module]:
    """The parts of a network worth keeping: its children, its attentions, and the entries of every ModuleList."""
    parents = dict(denoiser.named_modules())
    names = [name for name in parents if name and isinstance(parents[name.rpartition(".")[0]], nn.ModuleList)]
    names += [name for name, module in parents.items() if name and isinstance(module, Attention)]
    names += [name for name, module in denoiser.named_children() if not isinstance(module, nn.ModuleList)]
    # A forward that someone has already replaced (offloading does) is left alone.
    return [parents[name] for name in dict.fromkeys(names) if "forward" not in vars(parents[name])]


def _take(output: Any, rows: Tensor) -> Any:
    """Rows of every tensor in nested tuples."""
    if isinstance(output, tuple):
        return tuple(_take(part, rows) for part in output)
    return output[rows] if isinstance(output, Tensor) else output


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
