"""Gates by place, as tests write them, for the spaces that objectives take."""

import torch
from torch import Tensor

from cad_exp.interventions.spaces import FF, OPTIONAL, ComponentSpace, Site, make_granularity


def rows_placed(gates: dict[str, Tensor]) -> tuple[ComponentSpace, Tensor]:
    """Module -> (..., in) gates of its columns: a space of these columns, and (..., n) gates."""
    sites = [Site(module, module, FF, (1, gate.shape[-1])) for module, gate in gates.items()]
    return make_granularity("neuron").on(sites), torch.cat(list(gates.values()), -1)


def entries(gates: dict[str, Tensor]) -> tuple[ComponentSpace, Tensor]:
    """Module -> (out, in) gates of its weights: a space of these weights, and (n,) gates."""
    sites = [Site(module, module, FF, tuple(gate.shape)) for module, gate in gates.items()]
    return make_granularity("weight", [FF, *OPTIONAL]).on(sites), torch.cat([gate.flatten() for gate in gates.values()])


def placed(gates: dict[str, Tensor]) -> tuple[ComponentSpace, Tensor]:
    """One set of gates of columns or of weights, as its shape says."""
    return rows_placed(gates) if all(gate.ndim == 1 for gate in gates.values()) else entries(gates)
