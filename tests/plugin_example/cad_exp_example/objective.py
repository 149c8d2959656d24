"""An objective: one formula for how strongly the model expresses the concept."""

import torch
from torch import Tensor

from cad_exp.attribution.objectives.base import Objective, Predict
from cad_exp.data.noisy_latents import NoisyLatents


class Cosine(Objective):
    """The cosine of the model's guidance and the intact model's: 1 for the same direction."""

    name, needs = "cosine", ("base", "cond")

    def loss(self, batch: NoisyLatents, predict: Predict) -> Tensor:
        now = (predict(batch, self.concept) - predict(batch, self.neutral)).flatten(1)
        return torch.cosine_similarity(now, (batch.cond - batch.base).flatten(1))
