"""Diffusion: networks that predict the noise (eps) or the velocity v, at timesteps 0 to 999, sampled by DDIM."""

from __future__ import annotations

from typing import Any

from diffusers import DDIMScheduler
from torch import Tensor

from cad_exp.utils.errors import UserError


class Diffusion:
    """The noise schedule of a pipeline's own scheduler: x_t = sqrt(abar_t) x0 + sqrt(1 - abar_t) noise.

    config: the scheduler's. Raises UserError for another prediction than eps and v.
    """

    def __init__(self, config: dict[str, Any], name: str):
        self.prediction_type: str = config.get("prediction_type", "epsilon")
        if self.prediction_type not in ("epsilon", "v_prediction"):
            raise UserError(f"'{name}' predicts '{self.prediction_type}': only epsilon and v_prediction are supported")
        # Latents are never clipped; a scheduler whose config lacks the entry would inherit DDIM's default, True.
        self.config = {**config, "clip_sample": config.get("clip_sample", False)}
        if self.config.get("timestep_spacing") == "linspace":
            # DDIM's step assumes a spacing of 1000 / steps, which `linspace` (PixArt's) does not have.
            self.config["timestep_spacing"] = "trailing"
        self._noiser = self.sampler()

    def sampler(self, steps: int | None = None, device: Any = "cpu", tokens: int = 0) -> DDIMScheduler:
        """Make a deterministic DDIM sampler (arXiv 2010.02502), with timesteps if `steps` are given.

        Raises UserError for more steps than the schedule has.

        `tokens`, the length of an image's sequence, means nothing here.
        """
        scheduler = DDIMScheduler.from_config(self.config)
        if steps is not None:
            if not 1 <= steps <= scheduler.config.num_train_timesteps:
                raise UserError(f"steps={steps} is out of range: use 1 to {scheduler.config.num_train_timesteps}")
            scheduler.set_timesteps(steps, device=device)
        return scheduler

    def timesteps(self, position: Tensor) -> Tensor:
        """Turn positions (n,) in 0..1, from the image to the noise, into timesteps (n,) int64."""
        span: int = self._noiser.config.num_train_timesteps
        return (position * span).long().clamp(max=span - 1)

    def add_noise(self, latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """Diffuse latents (B, C, h, w) to timesteps t (B,)."""
        noisy: Tensor = self._noiser.add_noise(latents, noise, t)
        return noisy

    def target(self, latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """Return what a perfect network predicts: the noise, or v = sqrt(abar_t) noise - sqrt(1 - abar_t) x0."""
        if self.prediction_type == "epsilon":
            return noise
        velocity: Tensor = self._noiser.get_velocity(latents, noise, t)
        return velocity

    def predicted_x0(self, x: Tensor, t: Tensor, prediction: Tensor) -> Tensor:
        """Return the clean latents (B, C, h, w) that a prediction at x (B, C, h, w), t (B,) implies.

        Differentiable.

        eps: (x - sqrt(1 - abar_t) eps) / sqrt(abar_t) (DDIM, arXiv 2010.02502, eq. 12);
        v: sqrt(abar_t) x - sqrt(1 - abar_t) v (Salimans and Ho, arXiv 2202.00512, appendix D).
        """
        kept: Tensor = self._noiser.alphas_cumprod.to(x.device)[t.to(x.device)].view(-1, 1, 1, 1)
        signal, noise = kept.sqrt(), (1 - kept).sqrt()
        if self.prediction_type == "epsilon":
            return (x - noise * prediction) / signal
        return signal * x - noise * prediction
