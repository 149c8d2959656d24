"""Gradient checkpointing (Chen et al., arXiv 1604.06174): blocks compute again in the backward pass what they forgot.

diffusers has the switch, but its blocks compute again with the weights and hooks of that later moment. Here weights are
gated, and activations replaced, only while the forward pass lasts; so each block remembers under what it ran.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from diffusers.models.modeling_utils import ModelMixin
from torch import nn
from torch.utils.checkpoint import checkpoint

from cad_exp.utils.errors import UserError

# What gates and ablation change in a module for the time of a forward pass (a forward hook's flags lie beside it).
_STATE = (
    "_parameters",
    "_forward_hooks",
    "_forward_pre_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_pre_hooks_with_kwargs",
    "_forward_hooks_always_called",
)


def enable(network: nn.Module) -> None:
    """Switch it on for a diffusers network; it acts wherever gradients are on. UserError for one that cannot."""
    if not isinstance(network, ModelMixin) or not network._supports_gradient_checkpointing:
        raise UserError("the denoiser of this model cannot compute activations again: use runtime.checkpointing=false")
    network.enable_gradient_checkpointing(_checkpointed)


def _checkpointed(block: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """Return the block's output; of its inside nothing is kept for the backward pass but its inputs."""
    if not isinstance(block, nn.Module):
        return checkpoint(block, *args, use_reentrant=False, preserve_rng_state=False, **kwargs)
    state = [(module, {name: vars(module)[name].copy() for name in _STATE}) for module in block.modules()]

    def again(*args: Any, **kwargs: Any) -> Any:
        with _restored(state):
            return block(*args, **kwargs)

    # Networks are in eval mode here: without dropout there is no random state to keep.
    return checkpoint(again, *args, use_reentrant=False, preserve_rng_state=False, **kwargs)


@contextmanager
def _restored(state: list[tuple[nn.Module, dict[str, Any]]]) -> Iterator[None]:
    now = [(module, {name: vars(module)[name] for name in kept}) for module, kept in state]
    try:
        for module, kept in state:
            vars(module).update(kept)
        yield
    finally:
        for module, kept in now:
            vars(module).update(kept)
