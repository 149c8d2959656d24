"""Objectives that compare predictions of the noise: CAD's two, and two that go by the guidance."""

from torch import Tensor

from cad_exp.attribution.objectives.base import Objective, Predict
from cad_exp.attribution.objectives.weighting import low_frequencies
from cad_exp.data.noisy_latents import NoisyLatents
from cad_exp.models.pipeline import DiffusionModel, Progress


class NoiseObjective(Objective):
    """J of differences between predictions.

    frequencies: the share of spatial frequencies that count, from the lowest, in 0..1; 0: the mean alone.
    """

    def __init__(
        self,
        model: DiffusionModel,
        latents: NoisyLatents,
        batch_size: int = 16,
        progress: Progress | None = None,
        ablation: str = "zero",
        weighting: str = "uniform",
        frequencies: float = 1.0,
    ):
        super().__init__(model, latents, batch_size, progress, ablation, weighting)
        self.frequencies = float(frequencies)

    def counted(self, latents: NoisyLatents, difference: Tensor) -> Tensor:
        """Return what counts of differences between predictions (..., M, C, h, w) at M noisy latents."""
        return super().counted(latents, self.seen(difference))

    def seen(self, difference: Tensor) -> Tensor:
        """Return the frequencies that count of a difference between predictions (..., h, w)."""
        return low_frequencies(difference, self.frequencies)


class Erase(NoiseObjective):
    """CAD-Erase: J = E || eps(x_t, c, t; w) - stopgrad(eps(x_t, base, t)) ||^2, the mean over dimensions."""

    name, needs, flat_at_base, distance = "erase", ("base",), True, True

    def loss(self, batch: NoisyLatents, predict: Predict) -> Tensor:
        """Return the squared distance (B,) of the concept's prediction from the intact model's for the base prompt."""
        return self.seen(predict(batch, self.concept) - _given(batch.base)).square().flatten(1).mean(1)


class Amplify(NoiseObjective):
    """CAD-Amplify: J = -E || target - eps(x_t, c, t; w) ||^2, the negative denoising loss on images of the concept."""

    name, latents_kind, needs = "amplify", "noised", ("target",)

    def loss(self, batch: NoisyLatents, predict: Predict) -> Tensor:
        """Return the negative squared error (B,) of the concept's prediction."""
        return -self.seen(predict(batch, self.concept) - _given(batch.target)).square().flatten(1).mean(1)


class Projection(NoiseObjective):
    """J = E <eps(x, c; w) - eps(x, base; w), d> / |d|^2, d = the intact model's guidance direction at the noisy latent.

    1 for the intact model, 0 when nothing of the concept's direction is left.
    """

    name, needs = "projection", ("base", "cond")

    def loss(self, batch: NoisyLatents, predict: Predict) -> Tensor:
        """Return the share (B,) of the intact model's guidance that is left in its own direction."""
        direction = self.seen(_given(batch.cond) - _given(batch.base)).flatten(1)
        change = (predict(batch, self.concept) - predict(batch, self.neutral)).flatten(1)
        # A noisy latent where the prompts agree (d = 0) has no direction to lose; the floor makes it count 0 and not
        # NaN.
        return (change * direction).sum(1) / direction.square().sum(1).clamp_min(1e-12)


class GuidanceNorm(NoiseObjective):
    """J = E || eps(x, c; w) - eps(x, base; w) ||^2, the mean over dimensions: the edited model's own guidance.

    Whatever its direction: both predictions are the edited model's, nothing is held fixed.
    """

    name, flat_at_base = "guidance_norm", True

    def loss(self, batch: NoisyLatents, predict: Predict) -> Tensor:
        """Return the squared length (B,) of the edited model's own guidance."""
        change = predict(batch, self.concept) - predict(batch, self.neutral)
        return self.seen(change).square().flatten(1).mean(1)


def _given(tensor: Tensor | None) -> Tensor:
    """Return a tensor that the noisy latents have, because the objective `needs` it. ValueError if they do not."""
    if tensor is None:
        raise ValueError("the noisy latents lack a tensor that the objective needs")
    return tensor
