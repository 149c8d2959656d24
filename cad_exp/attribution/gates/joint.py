"""edit=joint: the gates of all components at once, by true gradients of the concept and of all that is to stay.

It minimises the sum of `attribution.gates.task`, subject to lowest <= d <= highest for the gates g = 1 + d: at -1 a
component is switched off, at -2 reversed, at +1 doubled. Steps:

1. Start at the intact model, or at the gates of a weaker edit.
2. Draw noisy latents of the concept and of what is to stay; predict all of them under the gates.
3. One backward pass gives the slopes of all gates; the first is what first-order scores are made of.
4. Take a step (Adam, Kingma and Ba, arXiv 1412.6980), and go back into the box. Repeat.

Because every step is taken where the gates are now, it counts interactions of any order. Gates as the only parameters
that are trained: Minimalist Concept Erasure (arXiv 2507.13386).
"""

from __future__ import annotations

import torch
from torch import Tensor

from cad_exp.attribution.gates.balance import Balance
from cad_exp.attribution.gates.task import Progress, Task

BETAS = (0.9, 0.99)  # a hundred steps are too few for Adam's usual memory of a thousand


class Joint:
    """The method: gates are the only parameters, and are trained within a box."""

    @staticmethod
    def gates(
        task: Task,
        strength: float,
        lowest: float = -2.0,
        highest: float = 1.0,
        steps: int = 120,
        rate: float = 0.03,
        batch: int = 12,
        worst: float = 1.0,
        seed: int = 0,
        start: Tensor | None = None,
        progress: Progress | None = None,
    ) -> Tensor:
        """Return the gates (n,) that erase and keep best.

        Args:
            task: what is asked of them.
            strength: what is left of the concept weighs so much against what moves elsewhere; above 0.
            lowest: least change of a gate, -1 switches off; below 0.
            highest: greatest change of a gate, 1 doubles; 0 or more.
            steps: each of one forward and one backward pass of 3 * batch predictions.
            rate: of the first half of the steps; it falls to 0 in the second half.
            batch: noisy latents of the concept, and as many of what is to stay, for each step.
            worst: by which power of its movement a prompt that is to stay counts; 0: all alike.
            seed: of their choice.
            start: gates (n,) to begin with; None: the intact model's.
            progress: called with the steps done, and their number.
        """
        gates = torch.ones(task.space.n) if start is None else start.clone().float()
        adam, balance = torch.optim.Adam([gates], lr=rate, betas=BETAS), Balance(task.groups, worst)
        for step, rows in enumerate(task.draws(steps, batch, seed)):
            adam.param_groups[0]["lr"] = rate * falling(step, steps)
            _, gates.grad = task.slopes(rows, gates, strength, balance)
            adam.step()
            gates.clamp_(1 + lowest, 1 + highest)
            if progress:
                progress(step + 1, steps)
        return gates


def falling(step: int, steps: int) -> float:
    """Return how large a step is beside the first: 1 for the first half of all, then falling to 0."""
    return min(1.0, 2 * (1 - step / steps))
