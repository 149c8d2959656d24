"""Tokens in shuffled batches from shards on disk, of which few are in memory at once.

1. Every epoch goes through the shards in another order, `buffer` of them at a time.
2. The rows of these are shuffled together and cut into batches; what is left over comes with the next shards.
3. All orders are seeded by (seed, epoch, place), so a stream that is asked for step n gives what it would have given.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from cad_exp.utils.errors import UserError


class Shard(Protocol):
    """Rows of tokens that are read when they are needed."""

    def __len__(self) -> int: ...

    def read(self) -> Tensor:
        """Return the tokens (rows, d) fp32."""


@dataclass(frozen=True)
class FileShard:
    """One tensor of a safetensors file, whose last dimension is that of a token."""

    file: Path
    name: str

    def __len__(self) -> int:
        with safe_open(self.file, framework="pt") as file:
            *rows, _ = file.get_slice(self.name).get_shape()
        return int(np.prod(rows))

    @property
    def size(self) -> int:
        """Bytes of the tokens as `read` returns them."""
        with safe_open(self.file, framework="pt") as file:
            return 4 * int(np.prod(file.get_slice(self.name).get_shape()))

    def read(self) -> Tensor:
        """Return the tokens (rows, d) fp32."""
        with safe_open(self.file, framework="pt") as file:
            tensor: Tensor = file.get_tensor(self.name)
        return tensor.reshape(-1, tensor.shape[-1]).float()


def buffer_for(size: int, most: int = 16, limit: int = 2**31) -> int:
    """Return how many shards of `size` bytes are held at once: at most `most`, of at most `limit` bytes, and one."""
    return max(1, min(most, limit // max(size, 1)))


class Stream:
    """An endless stream of batches of tokens. batch_size: tokens; buffer: shards in memory at once.

    Raises UserError for fewer tokens than one batch holds.
    """

    def __init__(self, shards: Sequence[Shard], batch_size: int, seed: int, buffer: int = 16):
        self.shards, self.batch_size, self.seed, self.buffer = list(shards), batch_size, seed, buffer
        self.rows = sum(map(len, shards))
        if self.rows < batch_size:
            raise UserError(
                f"{self.rows} tokens do not fill a batch of {batch_size}: take more images, or fewer tokens"
            )

    @property
    def per_epoch(self) -> int:
        """Batches of one epoch; less than a batch of rows is left out, others in every epoch."""
        return self.rows // self.batch_size

    def batches(self, start: int = 0) -> Iterator[Tensor]:
        """Yield batches (batch_size, d) from step `start` on."""
        epoch, skipped = divmod(start, self.per_epoch)
        while True:
            for number, batch in enumerate(self._epoch(epoch)):
                if number >= skipped:
                    yield batch
            epoch, skipped = epoch + 1, 0

    def _epoch(self, epoch: int) -> Iterator[Tensor]:
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.shards))
        left = None
        for place in range(0, len(order), self.buffer):
            rows = [self.shards[number].read() for number in order[place : place + self.buffer]]
            held = torch.cat(rows if left is None else [left, *rows])
            del rows
            shuffled = torch.from_numpy(np.random.default_rng([self.seed, epoch, place]).permutation(len(held)))
            whole = len(held) - len(held) % self.batch_size
            for start in range(0, whole, self.batch_size):
                yield held[shuffled[start : start + self.batch_size]]
            left = held[shuffled[whole:]].clone()
            del held
