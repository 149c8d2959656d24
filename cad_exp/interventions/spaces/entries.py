"""Components that are single weights of output projections."""

from __future__ import annotations

import pandas as pd
import torch
from torch import Tensor

from cad_exp.interventions.spaces.base import TABLE, ComponentSpace, RowGating
from cad_exp.interventions.spaces.columns import Columns
from cad_exp.interventions.spaces.sites import Site
from cad_exp.models.pipeline import DiffusionModel


class Entries(Columns):
    """Every weight of some sites, row after row. They are too many for a row each of the table or of a batch.

    The place of a gate is the weight: `split` gives (out, in) per module.
    """

    unit, per_row, row_each = "entry", False, False

    def table(self) -> pd.DataFrame:
        """Return one row per matrix; start and stop are its range in the score vector."""
        rows, start = [], 0
        for number, site in enumerate(self.sites):
            name = f"{site.block} · {site.kind} · weights"
            rows.append((number, site.module, site.block, site.kind, 0, name, start, start + site.size))
            start += site.size
        return pd.DataFrame(rows, columns=TABLE)

    def tabulate(self, values: Tensor) -> Tensor:
        """Return the sum of each matrix."""
        return torch.tensor([float(values[a:b].sum()) for a, b in self.table()[["start", "stop"]].to_numpy()])

    def row_gating(self, model: DiffusionModel, gates: Tensor) -> RowGating:
        """Raise UserError: a batch has no room for gates of single weights for each row."""
        return ComponentSpace.row_gating(self, model, gates)

    def _place(self, site: Site, parts: int, piece: Tensor) -> Tensor:
        return piece.view(site.shape)

    def _sum(self, own: Tensor, parts: int) -> Tensor:
        return own.reshape(parts)

    def _expand(self, site: Site, parts: int, numbers: Tensor) -> Tensor:
        return numbers // site.shape[1] * site.width + site.first + numbers % site.shape[1]

    def _contract(self, site: Site, parts: int, indices: Tensor) -> tuple[Tensor, Tensor]:
        row, column = indices // site.width, indices % site.width - site.first
        here = (column >= 0) & (column < site.shape[1])
        return here, row[here] * site.shape[1] + column[here]

    def _rows(self, site: Site) -> int:
        return 1
