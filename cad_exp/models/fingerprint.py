"""A short hash of the weights of a network: two have the same one only if all weights are the same."""

from __future__ import annotations

import hashlib

import torch
from torch import nn


def fingerprint(network: nn.Module, dtype: torch.dtype | None = None) -> str:
    """Return the first 16 hex digits of the SHA-256 of a network's weights (names, types and bytes).

    dtype: as which floating-point numbers are hashed; None takes them as they are.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        raw = tensor.detach().cpu().contiguous()
        raw = raw.to(dtype) if dtype is not None and raw.is_floating_point() else raw
        digest.update(f"{name} {raw.dtype} {tuple(raw.shape)}".encode())
        digest.update(raw.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]
