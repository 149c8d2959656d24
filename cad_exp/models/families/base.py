"""What every family of models is: how prompts are encoded, the denoiser called, and images made."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import cached_property
from inspect import Parameter, signature
from typing import Any

import torch
from diffusers import AutoencoderKL, DiffusionPipeline
from torch import Tensor, nn

from cad_exp.models.families.condition import Condition
from cad_exp.models.families.diffusion import Diffusion
from cad_exp.models.families.flow import Flow
from cad_exp.models.model_folder import not_square
from cad_exp.utils.errors import UserError

Ticker = Callable[[int, Tensor | None], None]  # called with the number of denoising steps done, and the latents then


class Family:
    """One family of pipelines. Latents are always (B, C, h, w), times whole numbers in the unit of its schedule.

    name: for messages. guidance: what the model's own recipe says. distilled: whether guidance is distilled into the
    weights, so that trajectories and images are made without it. The base prompt's prediction, which objectives compare
    with, is made for distilled models as for all others.
    """

    title: str  # what a person calls the family
    pipelines: tuple[type[DiffusionPipeline], ...]  # that make images of text; the first is made of others' components

    def __init__(self, pipe: DiffusionPipeline, name: str, guidance: float):
        self.pipe, self.name, self.guidance = pipe, name, float(guidance)
        self.distilled = self.guidance == 0
        self.schedule = self.make_schedule()

    @classmethod
    def fits(cls, pipe: Any) -> bool:
        """Return whether a pipeline is of this family, by the classes of its components."""
        raise NotImplementedError

    @classmethod
    def text_to_image(cls, pipe: DiffusionPipeline) -> DiffusionPipeline:
        """Return the pipeline itself if it makes images of text, else one that does, of the same components."""
        if isinstance(pipe, cls.pipelines):
            return pipe
        # Not by diffusers' `from_pipe`, which turns the components to fp32.
        asked = {name: each.default for name, each in signature(cls.pipelines[0]).parameters.items()}
        given = dict(pipe.config) | pipe.components
        return cls.pipelines[0](
            **{name: given.get(name, None if value is Parameter.empty else value) for name, value in asked.items()}
        )

    def make_schedule(self) -> Diffusion | Flow:
        """Make the schedule of the pipeline's scheduler. UserError for a prediction that is not supported."""
        return Diffusion(self.pipe.scheduler.config, self.name)

    @property
    def denoiser(self) -> nn.Module:
        """The UNet or transformer."""
        unet = getattr(self.pipe, "unet", None)
        network: nn.Module = unet if isinstance(unet, nn.Module) else self.pipe.transformer
        return network

    @property
    def modules(self) -> list[nn.Module]:
        """Every network of the pipeline."""
        return [part for part in self.pipe.components.values() if isinstance(part, nn.Module)]

    @property
    def config(self) -> Any:
        """The denoiser's config, as diffusers has it: a dict with attributes."""
        return self.denoiser.config

    @property
    def patch(self) -> int:
        """Latent pixels per side that the network sees as one."""
        return 1

    @property
    def scale(self) -> int:
        """Image pixels per latent pixel and side."""
        scale: int = self.pipe.vae_scale_factor
        return scale

    @property
    def channels(self) -> int:
        """Channels of the latents."""
        channels: int = self.config.in_channels
        return channels

    @property
    def resolution(self) -> int:
        """The side in pixels of the images that the model was made for. UserError if they are not square."""
        size: int | Sequence[int] = self.config.sample_size
        height, width = (size, size) if isinstance(size, int) else size
        if height != width:
            raise not_square(size, self.scale, self.name)
        return height * self.scale

    def check_resolution(self, resolution: int) -> int:
        """Return the same number of pixels. UserError if no latents have that size."""
        unit = self.scale * self.patch
        if resolution < unit or resolution % unit:
            raise UserError(f"resolution={resolution} does not fit '{self.name}': use a multiple of {unit}")
        return resolution

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """Return (C, h, w) for images of that size in pixels."""
        return (self.channels, height // self.scale, width // self.scale)

    def tokens(self, resolution: int) -> int:
        """Return the length of an image's sequence in the network; resolution: its side in pixels."""
        return (resolution // self.scale // self.patch) ** 2

    def steering(self, guidance: float) -> float:
        """Return the s in base + s (cond - base) that a trajectory follows when asked for `guidance`.

        A distilled model knows two kinds of trajectory: the base prompt's (0) and the concept's, unguided (1).
        """
        return float(guidance) if not self.distilled else float(guidance != 0)

    def image_guidance(self, guidance: float) -> float:
        """Return the guidance for the pipeline's own call when images are asked for with `guidance`."""
        return 0.0 if self.distilled else guidance

    def encode(self, prompts: Sequence[str], device: torch.device) -> Condition:
        """Encode prompts, one row each."""
        raise NotImplementedError

    def call(self, x: Tensor, t: Tensor, condition: Condition) -> tuple[tuple[Tensor, ...], dict[str, Any]]:
        """Return the denoiser's arguments for latents x (B, C, h, w), times t (B,), as many rows of condition."""
        raise NotImplementedError

    def output(self, raw: Tensor, x: Tensor) -> Tensor:
        """Return the prediction (B, C, h, w) in what the denoiser returned for x."""
        return raw

    def generate(
        self,
        prompts: list[str],
        noise: Tensor,
        steps: int,
        guidance: float,
        generators: list[torch.Generator],
        tick: Ticker,
    ) -> Any:
        """Make images (B, H, W, 3) in 0..1, by the pipeline's own call, from unit noise (B, C, h, w)."""
        height, width = (side * self.scale for side in noise.shape[-2:])
        dtype: Any = self.denoiser.dtype  # an attribute of diffusers' networks
        settings = {
            "height": height,
            "width": width,
            "num_inference_steps": steps,
            "guidance_scale": self.image_guidance(guidance),
            "latents": self.packed(noise.to(dtype)),
            "generator": generators,  # for samplers that add noise
            "output_type": "np",
        }
        return self.pipe(prompts, **settings, **self.settings(tick)).images

    def packed(self, latents: Tensor) -> Tensor:
        """Return latents in the layout in which the pipeline's own call takes them."""
        return latents

    def settings(self, tick: Ticker) -> dict[str, Any]:
        """Return further arguments of the pipeline's own call."""

        def report(pipe: Any, step: int, t: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
            tick(step + 1, kwargs.get("latents"))
            return kwargs

        return {"callback_on_step_end": report}

    @cached_property
    def autoencoder(self) -> AutoencoderKL:
        """The VAE; a copy in fp32 where it overflows in fp16 and the checkpoint says so (`force_upcast`)."""
        vae = self.pipe.vae
        if vae.dtype == torch.float16 and vae.config.get("force_upcast"):
            return deepcopy(vae).float()
        return vae

    def scaled(self, latents: Tensor) -> Tensor:
        """Return the VAE's latents as the denoiser sees them: less their mean, times the scale."""
        config = self.pipe.vae.config
        scale: float = config.scaling_factor
        return (latents - shift if (shift := config.get("shift_factor")) else latents) * scale

    def unscaled(self, latents: Tensor) -> Tensor:
        """Return the VAE's own latents: the inverse of `scaled`."""
        config = self.pipe.vae.config
        latents = latents / config.scaling_factor
        return latents + shift if (shift := config.get("shift_factor")) else latents
