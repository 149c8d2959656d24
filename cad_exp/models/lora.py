"""LoRA layers (arXiv 2106.09685), added to the weights of a loaded pipeline: `model.lora=[FILE]`. Only safetensors.

They are fused, W + scale * B A, and not kept beside the weights: whatever looks at the model sees plain matrices.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from cad_exp.models.sources import lora_file
from cad_exp.utils.errors import UserError, reason_of

NAME = "laid_over"
_DOWN = (".lora_A.weight", ".lora.down.weight")  # of a pair of matrices, once diffusers has translated its name


def fuse(pipe: Any, files: Sequence[str | Path], scale: float = 1.0) -> int:
    """Add LoRA files to the weights of a diffusers pipeline, in order; return how many weight tensors they changed.

    Args:
        pipe: a pipeline, edited in place.
        files: safetensors files, or ids on the hub (`owner/name`, `owner/name/file.safetensors`).
        scale: what the layers' changes are multiplied by.

    Raises:
        UserError: a file is missing or no LoRA, fits the model not at all or in part, or makes a weight infinite.
    """
    return sum(_fuse(pipe, str(given), lora_file(given), scale) for given in files)


def _fuse(pipe: Any, given: str, file: Path, scale: float) -> int:
    if not hasattr(pipe, "load_lora_weights") or not hasattr(pipe, "fuse_lora"):
        raise UserError(f"diffusers reads no LoRA layers for this family of models: leave out model.lora='{given}'")
    before = {name: _names(part) for name, part in _networks(pipe)}
    try:
        with _quiet():
            state = pipe.lora_state_dict(str(file))
            asked = sum(name.endswith(_DOWN) for name in (state[0] if isinstance(state, tuple) else state))
            pipe.load_lora_weights(str(file), adapter_name=NAME)
            found = sum(_layers(part) for _, part in _networks(pipe))
            if 0 < asked <= found:
                pipe.fuse_lora(_components(pipe), lora_scale=scale, safe_fusing=True, adapter_names=[NAME])
    except Exception as error:  # peft, diffusers and torch say in many ways that a file does not fit
        _unload(pipe)
        raise UserError(
            f"the LoRA '{given}' does not fit this model: it was made for another one ({reason_of(error)})"
        ) from error
    _unload(pipe)
    if found == 0 or asked == 0:
        raise UserError(f"nothing in the LoRA '{given}' fits this model: it was made for another one")
    if found < asked:
        raise UserError(
            f"{asked - found} of {asked} layers of the LoRA '{given}' are not in this model: "
            "it was made for another one"
        )
    if before != {name: _names(part) for name, part in _networks(pipe)}:
        raise UserError(
            f"diffusers could not fuse the LoRA '{given}' into this model: fuse it elsewhere, save the model"
        )
    return found


def _networks(pipe: Any) -> Iterator[tuple[str, nn.Module]]:
    return ((name, part) for name, part in pipe.components.items() if isinstance(part, nn.Module))


def _components(pipe: Any) -> list[str]:
    return [name for name, part in _networks(pipe) if _layers(part)]


def _layers(network: nn.Module) -> int:
    return sum(NAME in getattr(module, "lora_A", {}) for module in network.modules())


def _names(network: nn.Module) -> list[str]:
    return [name for name, _ in network.named_parameters()]


def _unload(pipe: Any) -> None:
    with _quiet():
        pipe.unload_lora_weights()


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep diffusers from logging what is raised as an error in plain words."""
    loggers = [logging.getLogger(name) for name in ("diffusers", "peft")]
    levels = [each.level for each in loggers]
    for each in loggers:
        each.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for each, level in zip(loggers, levels, strict=True):
            each.setLevel(level)
