"""A file of activations at several hookpoints, of which as much is read as is needed at once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from cad_exp.representations.sae.stream import FileShard

NAMES = "hookpoints"  # in the file's metadata: their names, in network order


@dataclass(frozen=True)
class Shards:
    """The file of a batch of images: hookpoint -> (images, ...) fp32."""

    file: Path
    hookpoints: tuple[str, ...]  # in network order

    @classmethod
    def of(cls, file: Path) -> Shards:
        """Return what is in a file; of the activations themselves nothing is read."""
        from safetensors import safe_open

        with safe_open(file, framework="pt") as opened:
            return cls(file, tuple(opened.metadata()[NAMES].split("\n")))

    @classmethod
    def write(cls, file: Path, activations: dict[str, torch.Tensor]) -> None:
        """Write activations by hookpoint."""
        from safetensors.torch import save_file

        save_file(activations, file, {NAMES: "\n".join(activations)})

    def shard(self, hookpoint: str) -> FileShard:
        """Return one hookpoint's tokens as a shard of a stream."""
        from cad_exp.representations.sae.stream import FileShard

        return FileShard(self.file, hookpoint)

    def tensor(self, hookpoint: str) -> torch.Tensor:
        """Return one hookpoint's activations (images, ...)."""
        from safetensors import safe_open

        with safe_open(self.file, framework="pt") as file:
            tensor: torch.Tensor = file.get_tensor(hookpoint)
        return tensor

    def column(self, hookpoint: str, number: int) -> torch.Tensor:
        """Return one hookpoint's activations (images, ...) at one place of the second dimension, such as a timestep."""
        from safetensors import safe_open

        with safe_open(self.file, framework="pt") as file:
            column: torch.Tensor = file.get_slice(hookpoint)[:, number]
        return column
