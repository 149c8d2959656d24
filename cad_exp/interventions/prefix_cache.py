"""Replay: what an intact forward pass computed serves later passes that differ from it only from some module on.

Ablations of a late module leave all that comes before it as it was; so the blocks before it need not compute again.
"""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from typing import Any

import torch
from diffusers.models.attention import AttentionModuleMixin
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn


class IntactPass:
    """One forward pass of the intact network: when its gated modules began, when its blocks ended, what they gave.

    Exact for every network whose blocks treat each row of a batch alone (eval mode); one called twice is not replayed.
    """

    def __init__(self) -> None:
        self.began: dict[str, int] = {}
        self.ended: dict[nn.Module, tuple[int, Any]] = {}

    @contextmanager
    def record(self, denoiser: nn.Module, modules: Iterable[str]) -> Iterator[None]:
        """Meanwhile, one forward pass is noted down; `modules` are those that ablations may change."""
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
        ended = {module: output for module, (moment, output) in self.ended.items() if moment < start}
        try:
            for module, output in ended.items():
                module.forward = lambda *_, output=output, **__: take(output, rows)
            yield
        finally:
            for module in ended:
                vars(module).pop("forward", None)


def blocks(denoiser: nn.Module) -> list[nn.Module]:
    """The parts of a network worth keeping: its children, its attentions, and the entries of every ModuleList.

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
    """Rows of every tensor in nested tuples."""
    if isinstance(output, tuple):
        return tuple(take(part, rows) for part in output)
    return output[rows] if isinstance(output, Tensor) else output
