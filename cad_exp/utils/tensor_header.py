"""What a tensor file of cad_exp says of itself, read from its header alone: no tensors, no torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

LARGEST = 100_000_000  # bytes of a header: the limit of the safetensors format
KEY = "cad_exp"  # of our entry in the header's metadata


def kind_of(file: Path) -> str | None:
    """Return the kind of a file (`edit`, `noisy_latents`, `attribution`); None for any other file, damaged ones too."""
    try:
        kind = json.loads(_header(file)["__metadata__"][KEY])["kind"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return kind if isinstance(kind, str) else None


def tensor_names(file: Path) -> list[str]:
    """Return the names of a safetensors file's tensors; none for any other file, damaged ones too."""
    try:
        return [name for name, told in _header(file).items() if name != "__metadata__" and "shape" in told]
    except (OSError, ValueError, AttributeError, TypeError, RecursionError):
        return []


def _header(file: Path) -> Any:
    with open(file, "rb") as stream:
        size = int.from_bytes(stream.read(8), "little")
        return json.loads(stream.read(size)) if size <= LARGEST else {}
