"""Tensor files with JSON metadata."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from cad_exp.utils import console
from cad_exp.utils.errors import UserError
from cad_exp.utils.io import atomic, system_error
from cad_exp.utils.tensor_header import KEY


def save_tensors(path: str | Path, kind: str, tensors: dict[str, torch.Tensor], meta: dict[str, Any]) -> Path:
    """Write tensors and JSON-able metadata to a safetensors file of a kind (`edit`, `noisy_latents`, `attribution`).

    Raises OSError where the file cannot be written; what was there before stays.
    """
    with atomic(path) as draft:
        try:
            save_file(
                _apart(tensors),
                str(draft),
                metadata={KEY: json.dumps({"kind": kind, "version": 1, "meta": meta}, sort_keys=True)},
            )
        except SafetensorError as error:
            raise system_error(error) or error from error
    return Path(path)


def _apart(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return tensors of which no two share memory: safetensors refuses such, and each is its own in the file."""
    found: dict[str, torch.Tensor] = {}
    seen = set[int]()
    for name, tensor in tensors.items():
        own = tensor.detach().cpu().contiguous()
        place = own.untyped_storage().data_ptr()
        found[name] = own.clone() if place in seen else own
        seen.add(place)
    return found


def resumed(path: Path, kind: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
    """Return what a stopped stage left in its checkpoint; None, said and with the file gone, where it is damaged."""
    try:
        return load_tensors(path, kind)
    except UserError:
        console.say(f"  what a stopped run left in '{path}' is damaged: starting over", style="yellow")
        path.unlink(missing_ok=True)
        return None


def load_tensors(path: str | Path, kind: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Read what `save_tensors` wrote. UserError if the file is missing, damaged, or of another kind."""
    path, what = Path(path), kind.replace("_", " ")
    if not path.is_file():
        raise UserError(f"there is no {what} file at '{path}': check the path, or run the stage that writes it")
    try:
        with safe_open(str(path), framework="pt") as file:
            header = json.loads((file.metadata() or {}).get(KEY, "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, ValueError, OSError) as error:
        raise UserError(f"'{path}' is damaged or no safetensors file ({error}): write it again") from error
    if not isinstance(header, dict) or header.get("kind") != kind or not isinstance(header.get("meta"), dict):
        raise UserError(f"'{path}' is no {what} file of cad_exp: give the file that the {what} stage wrote")
    return tensors, header["meta"]
