"""An edit of weights as a LoRA (arXiv 2106.09685): W' - W = B A, exactly, for every matrix that the edit changes.

  1. The edit is applied, and the change D of each changed weight is read off. A convolution's kernel counts as a matrix
     (out, in * height * width).
  2. D has few columns or rows that are not zero where neurons, heads or layers are scaled: these and unit vectors are
     B and A, without any rounding. Otherwise its singular values above the last bits of W are kept.
  3. The file has the names that diffusers reads. Each pair has its own rank, and nothing else scales it.

Where the pairs hold more numbers than the matrices themselves, the edit has no low rank, and is refused.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from cad_exp.interventions.edit import Edit
from cad_exp.interventions.networks import Networks, is_text
from cad_exp.utils.errors import UserError
from cad_exp.utils.io import atomic

OTHERS = "export it as a checkpoint instead (to=checkpoint, or Edit.export)"


def export_lora(edit: Edit, target: Any, path: str | Path) -> Path:
    """Write an edit as a LoRA that `pipe.load_lora_weights` reads; the pipeline in memory stays unedited.

    Args:
        edit: an edit that changes weights of the denoiser.
        target: the pipeline or DiffusionModel that it was made for.
        path: of the new safetensors file.

    Raises:
        UserError: something lies there already; the edit acts on activations or on text encoders, changes more than
            matrices and convolutions, or its changes have no low rank; or diffusers knows no LoRA for this pipeline.

    Examples:
        >>> import torch
        >>> model = cad_exp.DiffusionModel.load("mini", device="cpu")
        >>> layer = cad_exp.find_sites(model.denoiser)[0].module
        >>> edit = cad_exp.Edit({layer: torch.tensor([0, 3])}, factor=0.0)
        >>> cad_exp.export_lora(edit, model, "two-neurons.safetensors").name
        'two-neurons.safetensors'
    """
    pipe = getattr(target, "pipe", target)
    if os.path.lexists(path):
        raise UserError(f"there is already something at '{path}', and nothing is written over it: give another path")
    if edit.vectors or edit.steering:
        raise UserError("this edit changes activations and no weights, so no LoRA can hold it: use cad_exp.load_edit")
    if not hasattr(pipe, "load_lora_weights"):
        raise UserError(f"diffusers reads no LoRA layers for this family of models: {OTHERS}")
    prefix = "unet" if hasattr(pipe, "unet") else "transformer"
    pairs = {name: factors(change, own) for name, (change, own) in changes(edit, pipe).items()}
    if not pairs:
        raise UserError("this edit changes no weight of the model: there is nothing to export")
    tensors: dict[str, Tensor] = {}
    for name, (up, down, shape) in pairs.items():
        tensors[f"{prefix}.{name}.lora_B.weight"] = up.reshape(*up.shape, *(1 for _ in shape[2:])).contiguous()
        tensors[f"{prefix}.{name}.lora_A.weight"] = down.reshape(-1, *shape[1:]).contiguous()
    ranks = {name: down.shape[0] for name, (_, down, _) in pairs.items()}
    held = sum(tensor.numel() for tensor in tensors.values())
    whole = sum(shape.numel() for *_, shape in pairs.values())
    if held > whole:
        raise UserError(
            f"the changes of this edit have a rank of up to {max(ranks.values())}, so a LoRA would hold {held:,} "
            f"numbers and the weights that it changes have {whole:,}: {OTHERS}"
        )
    told = {f"{prefix}.{key}": value for key, value in _settings(ranks).items()}
    with atomic(path) as draft:
        save_file(tensors, str(draft), metadata={"format": "pt", "lora_adapter_metadata": json.dumps(told)})
    return Path(path)


def _settings(ranks: dict[str, int]) -> dict[str, Any]:
    """Return peft's settings of these ranks: without them some versions of diffusers scale unequal ranks wrongly."""
    first = next(iter(ranks.values()))
    others = {name: rank for name, rank in ranks.items() if rank != first}
    return {
        "r": first,
        "lora_alpha": first,
        "rank_pattern": others,
        "alpha_pattern": others,
        "target_modules": list(ranks),
    }


def changes(edit: Edit, target: Any) -> dict[str, tuple[Tensor, Tensor]]:
    """Return module -> (change, old weight) in fp32 on the CPU, for each weight of the denoiser that the edit changes.

    Raises UserError for a change of anything else than the weight of a linear or convolutional module.
    """
    networks = Networks.of(target)
    names = list(dict.fromkeys([*(f"{name}.weight" for name in edit.indices), *edit.replaced]))
    if any(map(is_text, names)):
        raise UserError(f"this edit changes a text encoder, whose LoRA layers other programs name otherwise: {OTHERS}")
    before = {name: networks.get_parameter(name).detach().float().cpu().clone() for name in names}
    found = {}
    with edit.apply(target):
        for name, old in before.items():
            change = networks.get_parameter(name).detach().float().cpu() - old
            if not change.any():
                continue
            module, _, kind = name.rpartition(".")
            if kind != "weight" or not isinstance(networks.get_submodule(module), nn.Linear | nn.Conv2d):
                raise UserError(f"this edit changes '{name}', which a LoRA cannot hold: {OTHERS}")
            found[module] = (change, old)
    return found


def factors(change: Tensor, own: Tensor) -> tuple[Tensor, Tensor, torch.Size]:
    """Return B (out, r), A (r, in) and the weight's shape, with B A equal to the change of a weight `own`.

    Few columns or rows are taken as they are; else the singular values that are above the last bits of the weight.
    """
    matrix = change.flatten(1)
    columns, rows = matrix.any(0).nonzero().flatten(), matrix.any(1).nonzero().flatten()
    if min(len(columns), len(rows)) > min(matrix.shape) // 4:
        left, values, right = torch.linalg.svd(matrix.double(), full_matrices=False)
        least = 1e-6 * max(float(own.norm()), float(values[0]))
        rank = int((values > least).sum())
        if rank < min(len(columns), len(rows)):
            root = values[:rank].sqrt()
            return (left[:, :rank] * root).float(), (root[:, None] * right[:rank]).float(), change.shape
    if len(columns) <= len(rows):
        return matrix[:, columns], torch.eye(matrix.shape[1])[columns], change.shape
    return torch.eye(matrix.shape[0])[:, rows], matrix[rows], change.shape
