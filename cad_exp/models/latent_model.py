"""What a model predicts: its denoiser under prompts, with the noise schedule that the network was trained with."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import DiffusionPipeline
from torch import Tensor, nn

from cad_exp.models.families import make_family
from cad_exp.models.families.condition import Condition


@dataclass
class Step:
    """One point of a trajectory: latents x (B, C, h, w) at timestep t, and the intact predictions there, all fp32."""

    t: int
    x: Tensor
    cond: Tensor
    base: Tensor


class LatentModel:
    """The half of a text-to-image pipeline that works on latents: text encoders, denoiser, noise schedule.

    A guidance of 0 says that the model is guidance-distilled (SDXL-Turbo; FLUX is, whatever it says): trajectories are
    then made without guidance, and the base prompt's prediction is still made for the objectives that compare with it.
    Raises UserError for a pipeline of no known family.
    """

    def __init__(self, pipe: DiffusionPipeline, name: str, guidance: float, resolution: int | None = None):
        self.family = make_family(pipe, name, guidance)
        self.pipe, self.name, self.guidance = self.family.pipe, name, float(guidance)
        self.pipe.set_progress_bar_config(disable=True)
        for module in self.family.modules:
            module.eval().requires_grad_(False)  # only gates are ever differentiated
        self.resolution = self.family.check_resolution(resolution or self.family.resolution)

    @property
    def denoiser(self) -> nn.Module:
        """The UNet or transformer."""
        return self.family.denoiser

    @property
    def device(self) -> torch.device:
        """Where the denoiser computes."""
        return next(self.denoiser.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The precision of the denoiser's weights."""
        return next(self.denoiser.parameters()).dtype

    @property
    def prediction_type(self) -> str:
        """What the denoiser's output means: epsilon, v_prediction or flow (the velocity from image to noise)."""
        return self.family.schedule.prediction_type

    def encode(self, prompts: Sequence[str], differentiable: bool = False) -> Condition:
        """Encode prompts as the denoiser's condition, one row each, on the model's device.

        differentiable: whether gates in a text encoder may ask for gradients.
        """
        with torch.set_grad_enabled(differentiable and torch.is_grad_enabled()):
            return self.family.encode(prompts, self.device)

    def predict(self, x: Tensor, t: Tensor, condition: Condition, weights: dict[str, Tensor] | None = None) -> Tensor:
        """Return the network's raw output (eps, v or flow velocity), fp32, like latents x (B, C, h, w) at t (B,).

        condition: B rows, or one that stands for all. `weights` replaces parameters by name for this call only.
        Differentiable in everything.
        """
        x = x.to(self.device, self.dtype)
        condition = condition.to(self.device, self.dtype).expand(len(x))
        args, call = self.family.call(x, t.to(self.device), condition)
        call["return_dict"] = False
        if weights:
            # No parameter of a denoiser has two names; looking for such ones takes longer than a small forward pass.
            raw = torch.func.functional_call(self.denoiser, weights, args, call, tie_weights=False)[0]
        else:
            raw = self.denoiser(*args, **call)[0]
        return self.family.output(raw, x).float()

    def sampler(self, steps: int | None = None) -> Any:
        """Make a deterministic sampler with the pipeline's own noise schedule: DDIM, or Euler for flow matching.

        It has `timesteps`, `init_noise_sigma` and `step(prediction, t, x).prev_sample`, as those of diffusers do.
        UserError for steps that do not fit the schedule.
        """
        return self.family.schedule.sampler(steps, self.device, self.family.tokens(self.resolution))

    def timesteps(self, position: Tensor) -> Tensor:
        """Turn positions (n,) in 0..1 between image and noise into timesteps (n,) int64 of the model."""
        return self.family.schedule.timesteps(position)

    def noise_like(self, seeds: Sequence[int], size: tuple[int, int] | None = None) -> Tensor:
        """Draw standard normal latents (B, C, h, w) fp32, each from its own seed.

        They are the same in any batch, on any device. size: (height, width) of the images in pixels, if not the
        model's.
        """
        shape = self.family.latent_shape(*(size or (self.resolution, self.resolution)))
        noise = [torch.randn(shape, generator=torch.Generator().manual_seed(int(seed))) for seed in seeds]
        return torch.stack(noise).to(self.device)

    @torch.no_grad()
    def trajectory(
        self, prompt: str | Sequence[str], base: str, seeds: Sequence[int], steps: int = 50, guidance: float = 3.0
    ) -> Iterator[Step]:
        """Walk seeded trajectories with classifier-free guidance, `base` being the guidance's negative branch.

        prompt: one for all, or one for each seed. In a forward pass the rows of the prompts come first.

        Yields `steps` Steps; each x is given with the timestep at which the network sees it, before the update. A
        distilled model follows the concept's prediction alone, or for guidance 0 the base prompt's.
        """
        scheduler, scale = self.sampler(steps), self.family.steering(guidance)
        if isinstance(prompt, str):
            states = self.encode([prompt, base]).repeat_interleave(len(seeds))
        else:
            states = Condition.cat([self.encode(prompt), self.encode([base] * len(seeds))])
        x = self.noise_like(seeds) * scheduler.init_noise_sigma
        for t in scheduler.timesteps:
            cond, base_prediction = self.predict(torch.cat([x, x]), t.expand(2 * len(x)), states).chunk(2)
            yield Step(int(t), x, cond, base_prediction)
            x = scheduler.step(base_prediction + scale * (cond - base_prediction), t, x).prev_sample

    def predicted_x0(self, x: Tensor, t: Tensor, prediction: Tensor) -> Tensor:
        """Return the clean latents (B, C, h, w) that a prediction at x (B, C, h, w), t (B,) implies.

        Differentiable.
        """
        return self.family.schedule.predicted_x0(x, t, prediction)

    def add_noise(self, latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """Bring latents (B, C, h, w) to timesteps t (B,) with noise of the same shape."""
        return self.family.schedule.add_noise(latents, noise, t)

    def target(self, latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """Return what a perfect network predicts for these latents and noise (B, C, h, w) at timesteps t (B,)."""
        return self.family.schedule.target(latents, noise, t)
