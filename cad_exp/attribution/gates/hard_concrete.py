"""edit=hard_concrete: masks of 0 and 1, whose odds are learned: a rival of edit=joint on the same sum.

Each gate is a random number between 0 and 1 that is exactly 0 or 1 most of the time (hard concrete distribution):

    s = sigmoid((log u - log(1 - u) + a) / temperature),  u uniform;   g = clamp(s (TOP - BOTTOM) + BOTTOM, 0, 1)

1. The log odds a are such that every gate is where it starts, at 1 or where a weaker edit has left it.
2. Draw u and noisy latents; the slopes of the sum at these gates give those of a by the chain rule.
3. Add the slope of `sparsity` times the share of gates that are likely to be below 1. Take a step of Adam; repeat.
4. The edit's gates are those of the most likely draw, u = 1/2.

Sources: Louizos, Welling and Kingma, arXiv 1712.01312, eq. 10 to 13; for erasing concepts, Minimalist Concept Erasure
(arXiv 2507.13386, section 3), which trains them through the whole sampling instead.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cad_exp.attribution.gates.balance import Balance
from cad_exp.attribution.gates.joint import BETAS, falling
from cad_exp.attribution.gates.task import Progress, Task

BOTTOM, TOP = -0.1, 1.1  # ends of the stretched interval
ENDS_AT = (1 - BOTTOM) / (TOP - BOTTOM)  # s from which on a gate is 1


class HardConcrete:
    """The method: the log odds of random masks are trained."""

    @staticmethod
    def gates(
        task: Task,
        strength: float,
        temperature: float = 0.5,
        sparsity: float = 0.0,
        steps: int = 120,
        rate: float = 0.1,
        batch: int = 12,
        worst: float = 1.0,
        seed: int = 0,
        start: Tensor | None = None,
        progress: Progress | None = None,
    ) -> Tensor:
        """Return the gates (n,), 0 to 1, of the most likely mask.

        Args:
            task: what is asked of them.
            strength: what is left of the concept weighs so much against what moves elsewhere; above 0.
            temperature: of the masks, above 0; towards 0 they are never between 0 and 1.
            sparsity: price of a component that is not left alone, were all of them so; 0 or more.
            steps: each of one forward and one backward pass of 3 * batch predictions.
            rate: of the first half of the steps, in log odds; it falls to 0 in the second half.
            batch: noisy latents of the concept, and as many of what is to stay, for each step.
            worst: by which power of its movement a prompt that is to stay counts; 0: all alike.
            seed: of their choice, and of the masks.
            start: gates (n,) to begin with; None: the intact model's.
            progress: called with the steps done, and their number.
        """
        begun = torch.ones(task.space.n) if start is None else start.float()
        odds = (temperature * torch.logit((begun - BOTTOM) / (TOP - BOTTOM))).requires_grad_()
        adam = torch.optim.Adam([odds], lr=rate, betas=BETAS)
        generator, balance = torch.Generator().manual_seed(seed), Balance(task.groups, worst)
        for step, rows in enumerate(task.draws(steps, batch, seed)):
            adam.param_groups[0]["lr"] = rate * falling(step, steps)
            u = torch.rand(task.space.n, generator=generator).clamp(1e-6, 1 - 1e-6)
            with torch.enable_grad():
                gates = mask(odds, torch.logit(u), temperature)
                below = 1 - torch.sigmoid(odds - temperature * torch.logit(torch.tensor(ENDS_AT)))
                _, slopes = task.slopes(rows, gates.detach(), strength, balance)
                (gates @ slopes + sparsity * below.mean()).backward()
            adam.step()
            adam.zero_grad()
            if progress:
                progress(step + 1, steps)
        return mask(odds.detach(), torch.zeros(task.space.n), temperature)


def mask(odds: Tensor, noise: Tensor, temperature: float) -> Tensor:
    """Return the gates (n,) of log odds and noise log u - log(1 - u)."""
    stretched = torch.sigmoid((noise + odds) / temperature) * (TOP - BOTTOM) + BOTTOM
    return stretched.clamp(0, 1)
