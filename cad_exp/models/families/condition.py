"""What the prompts tell a denoiser: text states and whatever else its family gives it, one row per prompt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Condition:
    """text (B, L, D), the states that the denoiser attends to; extras by name, each (B, ...): pooled states, masks.

    Every prompt has a row in each tensor. A condition is told from another by being another object (`is`).
    """

    text: Tensor
    extras: dict[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.text)

    def __getitem__(self, rows: int | slice | Tensor | Sequence[int]) -> Condition:
        """Return some rows, still as rows: a number gives one row. IndexError if there is no such row."""
        if isinstance(rows, int):
            rows = torch.arange(len(self))[rows].view(1)
        return self._each(lambda tensor: tensor[rows])

    def split(self, size: int = 1) -> list[Condition]:
        """Return conditions of `size` rows each, in order; the last may have fewer."""
        return [self[start : start + size] for start in range(0, len(self), size)]

    def expand(self, n: int) -> Condition:
        """Return one row as n rows, without a copy; n rows as they are. ValueError for any other number."""
        if len(self) == n:
            return self
        if len(self) != 1:
            raise ValueError(f"a condition of {len(self)} rows cannot stand for {n}")
        return self._each(lambda tensor: tensor.expand(n, *tensor.shape[1:]))

    def repeat_interleave(self, times: int) -> Condition:
        """Return every row `times` times, copies side by side."""
        return self._each(lambda tensor: tensor.repeat_interleave(times, 0))

    def to(self, device: torch.device, dtype: torch.dtype | None = None) -> Condition:
        """Move to a device, and to a floating type if one is given; integers (masks) keep theirs."""
        return self._each(lambda x: x.to(device, dtype if x.is_floating_point() else None))

    @staticmethod
    def cat(parts: Sequence[Condition]) -> Condition:
        """Return the rows of all parts, in order; they must be of one family."""
        names = parts[0].extras
        return Condition(
            torch.cat([part.text for part in parts]),
            {name: torch.cat([part.extras[name] for part in parts]) for name in names},
        )

    def _each(self, change: Callable[[Tensor], Tensor]) -> Condition:
        extras = {name: change(tensor) for name, tensor in self.extras.items()}
        return replace(self, text=change(self.text), extras=extras)
