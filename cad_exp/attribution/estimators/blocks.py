"""J of many ablations, in blocks that are kept on disk, so that a stopped run goes on where it was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cad_exp.attribution.estimators.base import Estimator
from cad_exp.attribution.game import Game
from cad_exp.interventions.spaces import Scale
from cad_exp.utils import distributed
from cad_exp.utils.errors import UserError
from cad_exp.utils.tensors import resumed, save_tensors


class AblationEstimator(Estimator):
    """An estimator that evaluates J at many gates, `block` of them per call.

    Every finished block is written to the watch's checkpoint; remove it when the scores are safe.
    """

    scale = Scale.MANY
    block: int = 256

    def _values(
        self,
        game: Game,
        rows: Callable[[int, int], Tensor],
        number: int,
        settings: dict[str, Any],
        checkpoint: Path | None,
    ) -> Tensor:
        """Return J (number,) fp64 at the gates that `rows(start, stop)` gives, (stop - start, n).

        settings: all that decides the rows. UserError if the checkpoint belongs to other ones or to another game.
        """
        # The intact value stands for model, objective and noisy latents; six digits, for threads and batches move the
        # last.
        intact, kinds = float(f"{game.intact:.6g}"), list(game.space.kinds)
        identity = {"estimator": self.name, "granularity": game.space.name, "kinds": kinds, "n": game.n}
        identity |= {"number": number, "intact": intact, **settings}
        values = _resumed(identity, checkpoint)
        for start in range(0, number, self.block):
            stop = min(start + self.block, number)
            if values[start:stop].isnan().any():
                values[start:stop] = game.values(rows(start, stop))
                if checkpoint is not None and distributed.main():  # all processes hold the same values
                    save_tensors(checkpoint, "checkpoint", {"values": values}, identity)
        return values


def _resumed(identity: dict[str, Any], checkpoint: Path | None) -> Tensor:
    """Return what an earlier run has finished; NaN for the rest."""
    empty = torch.full((identity["number"],), torch.nan, dtype=torch.float64)
    if checkpoint is None or distributed.agree(not Path(checkpoint).is_file()):
        return empty
    found = resumed(checkpoint, "checkpoint") if distributed.main() else None
    if not (found := distributed.agree(found)):
        return empty
    tensors, meta = found
    if meta != identity:
        raise UserError(f"the checkpoint '{checkpoint}' belongs to another run: remove it, or name another")
    return tensors.get("values", empty)
