"""State dicts of the real judges, read without unpickling anything but tensors."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import torch

from cad_exp.utils.errors import UserError

Network = TypeVar("Network", bound=torch.nn.Module)


def read_state(path: Path) -> dict[str, torch.Tensor]:
    """Read the state dict in a .safetensors file or in a weights-only PyTorch file. UserError for anything else."""
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle, zip and safetensors errors: whatever it is, the file is not what it should be
        raise UserError(f"'{path}' holds no weights that can be read safely ({error})") from error
    if not isinstance(state, dict):
        raise UserError(f"'{path}' holds no state dict")
    return state


def fill(network: Network, path: Path, what: str, prefix: str = "") -> Network:
    """Return the network with the weights of a file, frozen, in evaluation mode.

    prefix: only the entries that begin so are taken, without it (a backbone out of a classifier).
    Raises UserError if they are another network's.
    """
    state = {key.removeprefix(prefix): value for key, value in read_state(path).items() if key.startswith(prefix)}
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise UserError(f"'{path}' does not hold the weights of {what}: {str(error).splitlines()[0]}") from error
    return network.eval().requires_grad_(False)
