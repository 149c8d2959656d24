"""Objectives that compare predictions of the noise: CAD's two, and two that go by the guidance."""

from torch import Tensor

from cad_exp.attribution.objectives.base import Objective, Predict
from cad_exp.data.noisy_latents import NoisyLatents


class Erase(Objective):
    """CAD-Erase: J = E || eps(x_t, c, t; w) - stopgrad(eps(x_t, base, t)) ||^2, the mean over dimensions."""

    name, needs, flat_at_base, distance = "erase", ("base",), True, True

    def loss(self, batch: NoisyLatents, predict: Predict) -> Tensor:
        """Return the squared distance (B,) of the concept's prediction from the intact model's for the base prompt."""
        return (predict(batch, self.concept) - _given(batch.base)).square().flatten(1).mean(1)


class Amplify(Objective):
    """CAD-Amplify: J = -E || target - eps(x_t, c, t; w) ||^2, the negative denoising loss on images of the concept."""

    name, latents_kind, needs = "amplify", "noised", ("target",)

    def loss(self, batch: NoisyLatents, predict: Predict) -> Tensor:
        """Return the negative squared error (B,) of the concept's prediction."""
        return -(predict(batch, self.concept) - _given(batch.target)).square().flatten(1).mean(1)


class Projection(Objective):
    """J = E <eps(x, c; w) - eps(x, base; w), d> / |d|^2, d = the intact model's guidance direction at the noisy latent.

    1 for the intact model, 0 when nothing of the concept's direction is left.
    """

    name, needs = "projection", ("base", "cond")

    def loss(self, batch: NoisyLatents, predict: Predict) -> Tensor:
        """Return the share (B,) of the intact model's guidance that is left in its own direction."""
        direction = (_given(batch.cond) - _given(batch.base)).flatten(1)
        change = (predict(batch, self.concept) - predict(batch, self.neutral)).flatten(1)
        # A noisy latent where the prompts agree (d = 0) has no direction to lose; the floor makes it count 0 and not
        # NaN.
        return (change * direction).sum(1) / direction.square().sum(1).clamp_min(1e-12)


class GuidanceNorm(Objective):
    """J = E || eps(x, c; w) - eps(x, base; w) ||^2, the mean over dimensions: the edited model's own guidance.

    Whatever its direction: both predictions are the edited model's, nothing is held fixed.
    """

    name, flat_at_base = "guidance_norm", True

    def loss(self, batch: NoisyLatents, predict: Predict) -> Tensor:
        """Return the squared length (B,) of the edited model's own guidance."""
        return (predict(batch, self.concept) - predict(batch, self.neutral)).square().flatten(1).mean(1)


def _given(tensor: Tensor | None) -> Tensor:
    """Return a tensor that the noisy latents have, because the objective `needs` it. ValueError if they do not."""
    if tensor is None:
        raise ValueError("the noisy latents lack a tensor that the objective needs")
    return tensor
