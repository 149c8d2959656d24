"""The one module that changes or watches a network while it runs. What lasts is an edit (interventions/edit.py).

Each mechanism is here because no other gives the same numbers at the same cost:
  swapped          other weights in a Linear. Gates that all rows share cost nothing in the forward pass, and the
                   gradient of the effective weights is added up once for all granularities.
  scaled_inputs    pre-hooks: each row of a batch has column gates of its own, which one weight matrix cannot give.
  added_outputs    hooks: what removed weights make of a replacement. Mixed into the input, it would change last bits.
  scaled_outputs   hooks: directions of an activation, which belong to no weight.
  changed_output   hooks: whatever a function makes of an activation.
  watched          hooks that only look.
  IntactPass       replaces `forward` for a while: nothing else keeps a block from computing.
Activation checkpointing (models/activation_checkpointing.py) keeps copies of `_parameters` and hooks, for its blocks
compute again when all this is long gone.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from itertools import count, cycle
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.attention import AttentionModuleMixin
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

from cad_exp.interventions.encoder import Encoder
from cad_exp.interventions.networks import Networks
from cad_exp.utils.errors import UserError

INPUT, OUTPUT = "input", "output"
# module -> what replaces its activation at each of its calls in a pass: (d,) for all rows, or (B, ..., d)
Replacements = dict[str, list[Tensor]]
Network = nn.Module | Networks


@dataclass(frozen=True)
class Tap:
    """An activation: an input or output of a module, the first unless `index` says which.

    axis: the one of its features.
    """

    module: str
    side: str = INPUT
    axis: int = -1
    index: int = 0


@contextmanager
def swapped(networks: Network, weights: Mapping[str, Tensor]) -> Iterator[None]:
    """Let Linears compute with other weights (out, in) meanwhile; differentiable in them."""
    with ExitStack() as undo:
        for name, weight in weights.items():
            parameters = vars(networks.get_submodule(name))["_parameters"]
            undo.callback(parameters.__setitem__, "weight", parameters["weight"])
            parameters["weight"] = weight
        yield


@contextmanager
def scaled_inputs(networks: Network, gates: Mapping[str, Tensor], replacements: Replacements) -> Iterator[None]:
    """Let each row of a batch have its own column gates meanwhile: module -> (B, in); x becomes g x + (1 - g) r.

    Raises UserError if a module does not see one row per sample.
    """

    def mask(name: str, gate: Tensor, args: tuple[Any, ...]) -> tuple[Any, ...]:
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
            module = networks.get_submodule(name)
            hook = module.register_forward_pre_hook(lambda _, args, name=name, gate=gate: mask(name, gate, args))
            hooks.callback(hook.remove)
        yield


@contextmanager
def added_outputs(networks: Network, removed: Mapping[str, Tensor], replacements: Replacements) -> Iterator[None]:
    """Let modules add to their outputs what their removed weights W (1 - g) (out, in) make of r.

    Differentiable in the removed weights. Raises UserError if a module does not see one row per sample.
    """

    def add(name: str, args: tuple[Any, ...], output: Tensor) -> Tensor:
        replacement = next(turns[name])
        if replacement.ndim > 1:
            _one_row_each(name, args[0], replacement)
        return output + F.linear(replacement, removed[name].to(replacement.dtype)).to(output.dtype)

    turns = {name: cycle(calls) for name, calls in replacements.items()}
    with ExitStack() as hooks:
        for name in replacements:
            hook: Any = lambda _, args, output, name=name: add(name, args, output)  # noqa: E731
            hooks.callback(networks.get_submodule(name).register_forward_hook(hook).remove)
        yield


@contextmanager
def scaled_outputs(
    networks: Network,
    tap: Tap,
    vectors: Tensor,
    gates: Tensor,
    replacements: Replacements | None = None,
    encoder: Encoder | None = None,
    chosen: Tensor | None = None,
) -> Iterator[None]:
    """Let an output h become h + sum_i (g_i - 1) <h - r, d_i> d_i; r is 0 without a replacement.

    vectors: the directions d (k, features). gates: (k,) for all rows, or (B, k). Differentiable in the gates.
    encoder: tells z_i(h) - z_i(r) in place of <h - r, d_i>, and without a replacement z_i(h). chosen: the numbers (k,)
    of its latents whose directions these are; None: all. Raises UserError if the module does not see one row per
    sample.
    """
    given = (replacements or {}).get(tap.module)
    turn = cycle(given or [torch.zeros(())])
    moved: dict[Any, Any] = {}  # a sampler asks a hundred times

    def values(h: Tensor) -> Tensor:
        reader: Encoder = moved[h.device, h.dtype][1]
        found: Tensor = reader.values(h)
        return found if chosen is None else found.index_select(-1, chosen.to(h.device))

    def read(h: Tensor, instead: Tensor, d: Tensor) -> Tensor:
        if encoder is None:
            projected: Tensor = (h - instead) @ d.T
            return projected
        return values(h) if given is None else values(h) - values(instead)

    def change(h: Tensor) -> Tensor:
        if (h.device, h.dtype) not in moved:
            moved[h.device, h.dtype] = (vectors.to(h), None if encoder is None else encoder.to(h))
        d: Tensor = moved[h.device, h.dtype][0]
        gate, instead = gates.to(h.device, h.dtype), next(turn).to(h.device, h.dtype)
        if gate.ndim > 1:
            _one_row_each(tap.module, h, gate)
            gate = gate.view(len(gate), *[1] * (h.ndim - 2), -1)
        return h + ((gate - 1) * read(h, instead, d)) @ d

    with changed_output(networks, tap, change):
        yield


@contextmanager
def changed_output(networks: Network, tap: Tap, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Let an output be what `change` makes of it meanwhile; it sees and returns the features last."""

    def hook(_: nn.Module, __: Any, output: Any) -> Any:
        if not isinstance(output, tuple):
            return change(output.movedim(tap.axis, -1)).movedim(-1, tap.axis)
        parts = list(output)
        parts[tap.index] = change(parts[tap.index].movedim(tap.axis, -1)).movedim(-1, tap.axis)
        return tuple(parts)

    handle = networks.get_submodule(tap.module).register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def watched(networks: Network, taps: Iterable[Tap], see: Callable[[Tap, Tensor], None]) -> Iterator[None]:
    """Show every activation, features last, to `see` meanwhile, as often as its module is called."""

    def note(tap: Tap, activation: Any) -> None:
        x = activation[tap.index] if isinstance(activation, tuple) else activation
        see(tap, x.movedim(tap.axis, -1))

    with ExitStack() as hooks:
        for tap in taps:
            module = networks.get_submodule(tap.module)
            if tap.side == INPUT:
                handle = module.register_forward_pre_hook(lambda _, args, tap=tap: note(tap, args))
            else:
                handle = module.register_forward_hook(lambda _, __, output, tap=tap: note(tap, output))
            hooks.callback(handle.remove)
        yield


def _one_row_each(name: str, x: Tensor, rows: Tensor) -> None:
    if len(x) != len(rows):
        raise UserError(f"module '{name}' does not see one row per sample: call value() for every ablation instead")


class IntactPass:
    """One forward pass of the intact network: when its gated modules began, when its blocks ended, what they gave.

    Ablations of a late module leave all that comes before it as it was; so the blocks before it need not compute again.
    Exact for every network whose blocks treat each row of a batch alone (eval mode); one called twice is not replayed.
    """

    def __init__(self) -> None:
        self.began: dict[str, int] = {}
        self.ended: dict[nn.Module, tuple[int, Any]] = {}

    @contextmanager
    def record(self, denoiser: nn.Module, modules: Iterable[str]) -> Iterator[None]:
        """Note down one forward pass; `modules` are those that ablations may change."""
        clock, twice = count(), set()

        def begin(name: str) -> None:
            self.began.setdefault(name, next(clock))

        def end(module: nn.Module, args: Any, output: Any) -> None:
            if module in self.ended:
                twice.add(module)
            self.ended[module] = (next(clock), output)

        with ExitStack() as hooks:
            for name in modules:
                hook = denoiser.get_submodule(name).register_forward_pre_hook(lambda *_, name=name: begin(name))
                hooks.callback(hook.remove)
            for module in blocks(denoiser):
                # Before other hooks: those of an edit act on what is replayed as well.
                hooks.callback(module.register_forward_hook(end, prepend=True).remove)
            yield
        self.ended = {module: found for module, found in self.ended.items() if module not in twice}

    def starts(self, changed: Mapping[str, Tensor]) -> Tensor:
        """Return the moment (A,) at which each ablation first changes a module; inf where none is reached.

        changed: module -> (A,) bool, which ablations change it.
        """
        starts = torch.full(next(iter(changed.values())).shape, torch.inf)
        for name, moment in self.began.items():
            starts[changed[name]] = starts[changed[name]].clamp(max=moment)
        return starts

    @contextmanager
    def replay(self, start: float, rows: Tensor) -> Iterator[None]:
        """Let blocks that ended before `start` return what they did for these rows (R,), without computing."""
        ended = {module: output for module, (moment, output) in self.ended.items() if moment < start}
        try:
            for module, output in ended.items():
                vars(module)["forward"] = lambda *_, output=output, **__: take(output, rows)
            yield
        finally:
            for module in ended:
                vars(module).pop("forward", None)


def blocks(denoiser: nn.Module) -> list[nn.Module]:
    """Return the parts of a network worth keeping: its children, its attentions, the entries of every ModuleList.

    Without those that have no weights: they are quick, and may know nothing of rows (tables of rotary positions).
    """
    parents = dict(denoiser.named_modules())
    names = [name for name in parents if name and isinstance(parents[name.rpartition(".")[0]], nn.ModuleList)]
    attentions = (Attention, AttentionModuleMixin)
    names += [name for name, module in parents.items() if name and isinstance(module, attentions)]
    names += [name for name, module in denoiser.named_children() if not isinstance(module, nn.ModuleList)]
    # A forward that someone has already replaced (offloading does) is left alone.
    found = [parents[name] for name in dict.fromkeys(names) if "forward" not in vars(parents[name])]
    return [module for module in found if any(True for _ in module.parameters())]


def take(output: Any, rows: Tensor) -> Any:
    """Return these rows of every tensor in nested tuples; anything else as it is."""
    if isinstance(output, tuple):
        return tuple(take(part, rows) for part in output)
    return output[rows] if isinstance(output, Tensor) else output


Ready = Callable[[], AbstractContextManager[None]]
