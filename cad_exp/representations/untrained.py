"""The same network with random weights: what a probe reads there, the shape of the network tells, not its training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from cad_exp.models.pipeline import DiffusionModel


@contextmanager
def untrained(model: DiffusionModel, seed: int) -> Iterator[None]:
    """Let the denoiser have freshly drawn weights meanwhile, as its class initialises them; undone bit for bit."""
    denoiser: Any = model.denoiser
    kept = {name: tensor.detach().clone() for name, tensor in denoiser.state_dict().items()}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        drawn = type(denoiser).from_config(denoiser.config).state_dict()
    try:
        denoiser.load_state_dict(drawn)
        yield
    finally:
        denoiser.load_state_dict(kept)
