"""Tensor files with JSON metadata, written atomically: a crash or Ctrl-C leaves the old file or none, never a half."""

import json
import os
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from cad_exp.errors import UserError

_KEY = "cad_exp"


def temporary(path: Path) -> Path:
    """A hidden sibling of `path` on the same file system, to be moved onto it by `os.replace`."""
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def save_tensors(path: str | Path, kind: str, tensors: dict[str, torch.Tensor], meta: dict) -> Path:
    """Write tensors and JSON-able metadata to a safetensors file of a kind (`edit`, `probes`, `attribution`)."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = temporary(path)
    try:
        save_file(
            {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()},
            str(draft),
            metadata={_KEY: json.dumps({"kind": kind, "version": 1, "meta": meta}, sort_keys=True)},
        )
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)
    return path


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
