"""How much each prompt that is to stay counts: one that moves more than the others counts for more.

A mean over prompts hides the one that loses everything: a concept's neighbour, which the edit takes along. So each
prompt counts by how far it has moved so far, to some power, and all together as much as before. With power 1
the gates end where the root mean square over prompts is least, in place of their mean.

Source: group distributionally robust optimisation (Sagawa et al., arXiv 1911.08731), with weights that follow the
losses at once instead of growing step by step.
"""

from __future__ import annotations

import torch
from torch import Tensor

MEMORY = 0.95  # of what was seen a step ago; a prompt is drawn about once a step


class Balance:
    """Running means of how far each prompt moves, and the weights that follow.

    groups: (M,) the number of the prompt of each noisy latent. power: 0 counts all alike.
    """

    def __init__(self, groups: Tensor, power: float):
        number = int(groups.max()) + 1
        self.groups, self.power = groups, float(power)
        self.moved, self.seen = torch.zeros(number, dtype=torch.float64), torch.zeros(number, dtype=torch.float64)

    def weights(self, rows: Tensor) -> Tensor:
        """Return what noisy latents of these numbers (m,) count, on average over prompts 1.

        1 for all while nothing has moved, and for a prompt that was not seen yet.
        """
        known = self.seen > 0
        counts = (self.moved[known] / self.seen[known]) ** self.power
        found = torch.ones(len(self.seen), dtype=torch.float64)
        if self.power and counts.sum():
            found[known] = counts / counts.mean()
        return found.float()[self.groups[rows]]

    def saw(self, rows: Tensor, squared: Tensor) -> None:
        """Take in how far the predictions at noisy latents of these numbers (m,) moved (m,)."""
        self.moved *= MEMORY
        self.seen *= MEMORY
        self.moved.index_add_(0, self.groups[rows], squared.double())
        self.seen.index_add_(0, self.groups[rows], torch.ones(len(rows), dtype=torch.float64))
