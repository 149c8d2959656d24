"""Flow matching: networks that predict the velocity from image to noise, at times 0 to 1000, sampled by Euler steps.

A time t is in thousandths of the way: x_t = (1 - s) x0 + s noise with s = t / 1000 (rectified flow, arXiv 2209.03003;
Stable Diffusion 3, arXiv 2403.03206), and the velocity is dx/ds = noise - x0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from torch import Tensor

from cad_exp.utils.errors import UserError

UNITS = 1000


class EulerStep(NamedTuple):
    """What a step gives, under the name that diffusers' samplers use."""

    prev_sample: Tensor


@dataclass
class EulerSampler:
    """Euler steps down a falling grid of times (steps,) int64; the last step ends at the image, t = 0."""

    timesteps: Tensor
    init_noise_sigma: float = 1.0

    def step(self, prediction: Tensor, t: Tensor | int, x: Tensor) -> EulerStep:
        """Return x at the grid's next time, from x at t and the velocity there: x + (s' - s) v."""
        later = self.timesteps[self.timesteps < t]
        following = int(later[0]) if len(later) else 0
        return EulerStep(x + (following - int(t)) / UNITS * prediction)


class Flow:
    """The schedule of a flow-matching pipeline's scheduler, whose config it is given.

    even: the grid starts from evenly spaced s, 1 to 1/steps, as FLUX's pipeline asks for, and not from the scheduler's.
    """

    prediction_type = "flow"

    def __init__(self, config: dict[str, Any], even: bool = False):
        self.config, self.even = dict(config), even

    def sigmas(self, steps: int, tokens: int) -> Tensor:
        """Return the noise levels s (steps,), from 1 down, of the pipeline's own sampler for so many tokens."""
        scheduler = FlowMatchEulerDiscreteScheduler.from_config(self.config)
        config, how = scheduler.config, dict[str, Any]()
        if config.use_dynamic_shifting:  # more tokens, more noise: the shift grows linearly with their number
            slope = (config.max_shift - config.base_shift) / (config.max_image_seq_len - config.base_image_seq_len)
            how["mu"] = config.base_shift + slope * (tokens - config.base_image_seq_len)
        if self.even and not config.get("use_flow_sigmas"):
            how["sigmas"] = np.linspace(1.0, 1 / steps, steps)
        scheduler.set_timesteps(steps, **how)
        sigmas: Tensor = scheduler.sigmas[:steps]
        return sigmas

    def sampler(self, steps: int | None = None, device: Any = "cpu", tokens: int = 0) -> EulerSampler:
        """Make a deterministic Euler sampler on the pipeline's own grid, rounded to whole units: t says exactly s.

        tokens: length of the image's sequence, where the grid depends on it. Without `steps` it has no grid. UserError
        if there are more steps than the grid can hold.
        """
        if steps is None:
            return EulerSampler(torch.zeros(0, dtype=torch.long, device=device))
        if not 1 <= steps <= UNITS:
            raise UserError(f"steps={steps} is out of range: use 1 to {UNITS}")
        t = (self.sigmas(steps, tokens) * UNITS).round().long().to(device)
        if len(t.unique()) < steps or t.min() < 1:
            raise UserError(f"steps={steps} is finer than this model's noise schedule can be cut: use fewer")
        return EulerSampler(t)

    def timesteps(self, position: Tensor) -> Tensor:
        """Turn positions (n,) in 0..1, from image to noise, into times (n,) int64 in 1..1000; t = 0 has no noise."""
        return (position * UNITS).long().clamp(max=UNITS - 1) + 1

    def add_noise(self, latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """Move latents (B, C, h, w) towards the noise, to times t (B,)."""
        s = _share(t, latents)
        return (1 - s) * latents + s * noise

    def target(self, latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """Return what a perfect network predicts, at any time: noise - x0."""
        return noise - latents

    def predicted_x0(self, x: Tensor, t: Tensor, prediction: Tensor) -> Tensor:
        """Return the clean latents (B, C, h, w) that a velocity at x (B, C, h, w), t (B,) implies: x - s v.

        Differentiable.
        """
        return x - _share(t, x) * prediction


def _share(t: Tensor, like: Tensor) -> Tensor:
    """Return s (B, 1, 1, 1) of times t (B,)."""
    return (t.to(like.device, torch.float32) / UNITS).view(-1, 1, 1, 1)
