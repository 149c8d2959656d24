"""edit=greedy: one component after another goes, each time the one that helps most: a rival of edit=joint.

1. Draw noisy latents of the concept and of what is to stay, once.
2. Switch off each component that is still there, beside those that are gone already, and compute the true sum of
   `attribution.gates.task`.
3. Let the best one go, if the sum falls. Repeat until none helps, or enough are gone.

Forward selection by true effects: no gradient, no score, nothing predicted. It costs a pass for each component and
step, so it is for heads and layers, and there a bound on what scores can find by switching off.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cad_exp.attribution.gates.task import Progress, Task
from cad_exp.utils.errors import UserError

MOST = 512  # components


class Greedy:
    """The method: forward selection by the true sum."""

    @staticmethod
    def gates(
        task: Task,
        strength: float,
        steps: int = 12,
        batch: int = 24,
        seed: int = 0,
        start: Tensor | None = None,
        progress: Progress | None = None,
    ) -> Tensor:
        """Return gates (n,) of 0 and 1.

        Args:
            task: what is asked of them.
            strength: what is left of the concept weighs so much against what moves elsewhere; above 0.
            steps: components that go, at most.
            batch: noisy latents of the concept, and as many of what is to stay, at which they are tried.
            seed: of their choice.
            start: gates (n,) to begin with; None: the intact model's.
            progress: called with the steps done, and their number.

        Raises:
            UserError: for more components than can be tried one by one.
        """
        if task.space.n > MOST:
            raise UserError(
                f"edit=greedy tries every component at each step, and there are {task.space.n:,}: "
                "use granularity=head or layer, or edit=joint"
            )
        gates = torch.ones(task.space.n) if start is None else start.clone().float()
        (rows,) = task.draws(1, batch, seed)
        least = task.value(rows, gates, strength)
        for step in range(steps):
            left = gates.nonzero()[:, 0].tolist()
            sums = [task.value(rows, gates.index_fill(0, torch.tensor([one]), 0.0), strength) for one in left]
            if not sums or min(sums) >= least:
                break
            least = min(sums)
            gates[left[sums.index(least)]] = 0.0
            if progress:
                progress(step + 1, steps)
        return gates
