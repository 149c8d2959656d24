"""Tensor files with JSON metadata."""

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from cad_exp.errors import UserError
from cad_exp.files import atomic

_KEY = "cad_exp"


def save_tensors(path: str | Path, kind: str, tensors: dict[str, torch.Tensor], meta: dict) -> Path:
    """Write tensors and JSON-able metadata to a safetensors file of a kind (`edit`, `probes`, `attribution`)."""
    with atomic(path) as draft:
        save_file(
            {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()},
            str(draft),
            metadata={_KEY: json.dumps({"kind": kind, "version": 1, "meta": meta}, sort_keys=True)},
        )
    return Path(path)


def load_tensors(path: str | Path, kind: str) -> tuple[dict[str, torch.Tensor], dict]:
    """Read what `save_tensors` wrote. UserError if the file is missing, damaged, or of another kind."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"there is no {kind} file at '{path}': check the path, or run the stage that writes it")
    try:
        with safe_open(str(path), framework="pt") as file:
            header = json.loads((file.metadata() or {}).get(_KEY, "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, ValueError, OSError) as error:
        raise UserError(f"'{path}' is damaged or no safetensors file ({error}): write it again") from error
    if not isinstance(header, dict) or header.get("kind") != kind or not isinstance(header.get("meta"), dict):
        raise UserError(f"'{path}' is no {kind} file of cad_exp: give the file that the {kind} stage wrote")
    return tensors, header["meta"]
