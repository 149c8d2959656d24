"""The file of an edit: what its tensors are called, and what keeps its content from being an edit."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from cad_exp.interventions import encoder
from cad_exp.interventions.encoder import TENSORS

COLUMN, ENTRY, DIRECTION = "column", "entry", "direction"
UNITS = (COLUMN, ENTRY, DIRECTION)
# What the file calls what is no list of indices, before a module's or a parameter's name.
REPLACED, FACTORS, VECTORS, STEERING = "replaced:", "factors:", "vectors:", "steering:"
ENCODER = "encoder."  # then a part of it, and after a colon the module
MARKS = (REPLACED, FACTORS, VECTORS, STEERING)
PARTS = tuple(f"{ENCODER}{part}:" for part in TENSORS)


def fault(indices: dict[str, Tensor], factor: Any, meta: Any, replaced: dict[str, Tensor]) -> str | None:
    """Return what keeps the content of a file from being an edit; None where nothing does."""
    if type(factor) not in (int, float) or not abs(factor) < 1e30:
        return f"has the factor {str(factor)[:40]}, which is no number of a sensible size"
    if not isinstance(meta, dict):
        return "holds no metadata where its settings belong"
    for name, own in indices.items():
        if own.dtype not in (torch.int32, torch.int64) or own.dim() != 1:
            kind = str(own.dtype).removeprefix("torch.")
            return f"has indices of '{name}' of type {kind} and shape {tuple(own.shape)}, not a list of whole numbers"
        if len(own) and int(own.min()) < 0:
            return f"has a negative index of '{name}'"
        if len(torch.unique(own)) < len(own):
            return f"names an index of '{name}' twice"
    for name, new in replaced.items():
        if not new.is_floating_point() or not new.isfinite().all():
            return f"replaces '{name}' by values that are no finite numbers"
    return None


def parts_of(named: dict[str, dict[str, Tensor]], module: str) -> dict[str, Tensor]:
    """Return the tensors of a module's encoder, by their names in it."""
    return {part: named[mark][module] for part, mark in zip(TENSORS, PARTS, strict=True) if module in named[mark]}


def misfit(
    indices: dict[str, Tensor],
    unit: str,
    named: dict[str, dict[str, Tensor]],
    meta: dict[str, Any],
    taps: Any,
    encoders: Any,
) -> str | None:
    """Return what does not belong together in a file; None where all does."""
    if named[STEERING] and not {"acts", "settings"} <= set(meta):
        return "does not name the method whose hooks use its tensors"
    if set(named[VECTORS]) != (set(indices) if unit == DIRECTION else set()):
        return "does not have its directions where its indices are"
    fit = isinstance(taps, dict) and all(isinstance(tap, list) and len(tap) == 2 for tap in taps.values())
    if not fit or set(taps) != set(named[VECTORS]):
        return "does not tell where its directions act"
    for mark, dims in ((FACTORS, 1), (VECTORS, 2)):
        for name, value in named[mark].items():
            if name not in indices or value.dim() != dims or len(value) != len(indices[name]):
                return f"has {mark.rstrip(':')} of '{name}' that do not fit its indices"
            if not value.is_floating_point() or not value.isfinite().all():
                return f"has {mark.rstrip(':')} of '{name}' that are no finite numbers"
    if not isinstance(encoders, dict) or any(set(named[mark]) != set(encoders) for mark in PARTS):
        return "does not have its encoders whole"
    for name, facts in encoders.items():
        if name not in named[VECTORS]:
            return f"has an encoder of '{name}', but no latents there"
        features, most = named[VECTORS][name].shape[1], int(indices[name].max()) if len(indices[name]) else -1
        if wrong := encoder.fault(parts_of(named, name), facts, features, most):
            return wrong
    return None
