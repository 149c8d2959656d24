"""Components that are directions of an activation: a gate scales what the activation has along its direction."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from cad_exp.interventions.edit import DIRECTION, Edit
from cad_exp.interventions.gating import OUTPUT, Ready, Replacements, Tap, scaled_outputs
from cad_exp.interventions.networks import Networks, is_text
from cad_exp.interventions.spaces.base import TABLE, ComponentSpace, Gating, RowGating, Scale
from cad_exp.models.pipeline import DiffusionModel
from cad_exp.utils import distributed
from cad_exp.utils.errors import UserError

FEW = 1024  # directions that estimators can afford which evaluate J for many sets of all of them


class Directions(ComponentSpace):
    """Directions d_i (k, features) at one hookpoint, the output h of a module: h + sum_i (g_i - 1) <h, d_i> d_i.

    They need not be orthogonal: each reads the activation as it comes. axis: of h's features, 1 in a convolution's map.
    Raises UserError if they are no matrix, or the module belongs to a text encoder.
    """

    kinds, form = ("direction",), "directions"

    def __init__(self, module: str, vectors: Tensor, axis: int = -1, name: str = "direction"):
        if vectors.ndim != 2:
            raise UserError(f"directions of shape {tuple(vectors.shape)}: give a matrix, one direction a row")
        if is_text(module):
            raise UserError(f"'{module}' is of a text encoder: directions live in the denoiser")
        self.module, self.vectors, self.axis, self.name = module, vectors.detach().float().cpu(), axis, name
        self.n = len(vectors)
        self.scale = Scale.FEW if self.n <= FEW else Scale.MANY

    @property
    def taps(self) -> list[Tap]:
        """The module's output."""
        return [Tap(self.module, OUTPUT, self.axis)]

    def table(self) -> pd.DataFrame:
        """Return one row per direction; start and stop are its number and the next."""
        rows = [
            (i, self.module, self.module, self.kinds[0], i, f"{self.module} · {self.name} {i}", i, i + 1)
            for i in range(self.n)
        ]
        return pd.DataFrame(rows, columns=TABLE)

    def gating(self, model: DiffusionModel, gates: Tensor) -> Gating:
        """Return gates (n,) of the directions, the same for all rows."""
        return _Shared(self, model, gates.to(model.device, torch.float32))

    def row_gating(self, model: DiffusionModel, gates: Tensor) -> RowGating:
        """Return gates (A, n) of the directions, one set for each ablation."""
        return _Rows(self, Networks.of(model), gates.to(model.device, torch.float32))

    def split(self, gates: Tensor) -> dict[str, Tensor]:
        """Return numbers (..., n) under the module's name: the place of a gate is its direction."""
        return {self.module: gates}

    def join(self, places: dict[str, Tensor]) -> Tensor:
        """Return the numbers (n,) fp32 of the module."""
        return places[self.module].float()

    def components(self, edit: Edit) -> Tensor:
        """Return the sorted numbers of the directions that an edit scales."""
        return edit.indices.get(self.module, torch.zeros(0)).long().sort().values

    def intervention(self, selected: Tensor, factors: float | Tensor = 0.0, meta: dict[str, Any] | None = None) -> Edit:
        """Make the edit that scales the selected directions (k,) in the module's output."""
        selected, order = selected.long().sort()
        own = None if isinstance(factors, float | int) else factors.float()[order]
        facts = {
            "granularity": self.name,
            "kinds": list(self.kinds),
            "factor": factors if own is None else own.tolist(),
            "achieved": len(selected),
            "components": self.n,
            "changed": 0,  # weights
        }
        return Edit(
            {self.module: selected} if len(selected) else {},
            DIRECTION,
            factors if isinstance(factors, float | int) else 0.0,
            facts | (meta or {}),
            factors={} if own is None else {self.module: own},
            vectors={self.module: self.vectors[selected]} if len(selected) else {},
            axis=self.axis,
        )

    def segments(self, scope: str) -> list[tuple[int, int, int]]:
        """Return one group of all directions. UserError for a scope that it does not have."""
        self._checked(scope)
        return [(0, 1, self.n)]

    def saved(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return the directions, and the module with the axis of its features."""
        return {"vectors": self.vectors}, {"module": self.module, "axis": self.axis, "name": self.name}

    @classmethod
    def restored(cls, tensors: dict[str, Tensor], facts: dict[str, Any]) -> Directions:
        """Return the space that was `saved`."""
        return Directions(facts["module"], tensors["vectors"], facts["axis"], facts["name"])


class _Shared(Gating):
    """One set of gates for all rows; the gradient is that of the gates."""

    def __init__(self, space: Directions, model: DiffusionModel, gates: Tensor):
        self.space, self.networks, self.gates, self.taps = space, Networks.of(model), gates, space.taps

    def ready(self, replacements: Replacements) -> Ready:
        space = self.space
        return partial(scaled_outputs, self.networks, space.taps[0], space.vectors, self.gates, replacements)

    def differentiate(self) -> None:
        self.gates = self.gates.detach().clone().requires_grad_()

    def slopes(self) -> dict[str, Tensor]:
        slope = torch.zeros_like(self.gates) if self.gates.grad is None else self.gates.grad
        distributed.add_up([slope])
        return {self.space.module: slope.cpu()}


class _Rows(RowGating):
    """Gates of each row."""

    def __init__(self, space: Directions, networks: Networks, gates: Tensor):
        self.space, self.networks, self.gates = space, networks, gates
        self.changed = {space.module: (gates != 1).any(1).cpu()}
        self.taps: Sequence[Tap] = space.taps

    def __getitem__(self, rows: Tensor) -> _Rows:
        return _Rows(self.space, self.networks, self.gates[rows.to(self.gates.device)])

    def ready(self, replacements: Replacements) -> Ready:
        space = self.space
        return partial(scaled_outputs, self.networks, space.taps[0], space.vectors, self.gates, replacements)


RESTORED = {cls.form: cls for cls in (Directions,)}  # spaces that were not cut from sites
