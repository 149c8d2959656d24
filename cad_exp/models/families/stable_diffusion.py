"""Stable Diffusion 1 and 2: a UNet, one text encoder, eps or v prediction."""

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import LatentConsistencyModelPipeline, StableDiffusionPipeline, UNet2DConditionModel
from torch import Tensor, nn

from cad_exp.models.families.base import Family
from cad_exp.models.families.condition import Condition


class UNetFamily(Family):
    """Families with a UNet, which may have guidance distilled into it (LCM, arXiv 2310.04378).

    Such a network is told the model's own guidance (`model.guidance`) as a vector; its images and trajectories are made
    without any other guidance.
    """

    def __init__(self, pipe: Any, name: str, guidance: float):
        super().__init__(pipe, name, guidance)
        self.distilled = self.distilled or self.guided

    @property
    def guided(self) -> bool:
        """Whether the network is told its guidance."""
        return self.config.time_cond_proj_dim is not None

    def image_guidance(self, guidance: float) -> float:
        """Return the guidance as it is for a network that takes it as an input."""
        return guidance if self.guided else super().image_guidance(guidance)

    def told(self, x: Tensor) -> dict[str, Tensor]:
        """Return the network's `timestep_cond` (B, D) for latents x (B, C, h, w), where it takes one."""
        if not self.guided:
            return {}
        scale = torch.full((len(x),), self.guidance - 1)
        width = self.config.time_cond_proj_dim
        return {"timestep_cond": self.pipe.get_guidance_scale_embedding(scale, embedding_dim=width).to(x)}


class StableDiffusion(UNetFamily):
    """Text states alone condition the UNet (arXiv 2112.10752)."""

    title = "Stable Diffusion 1 or 2"
    pipelines = (StableDiffusionPipeline, LatentConsistencyModelPipeline)

    @classmethod
    def fits(cls, pipe: Any) -> bool:
        """Return whether a pipeline has a UNet that text states of one encoder alone condition."""
        unet, encoder = getattr(pipe, "unet", None), getattr(pipe, "text_encoder", None)
        if not isinstance(unet, UNet2DConditionModel) or not isinstance(encoder, nn.Module):
            return False
        plain = unet.config.addition_embed_type is None and text_alone(unet)
        return plain and not hasattr(pipe, "text_encoder_2") and unet.config.in_channels == latent_channels(pipe)

    def encode(self, prompts: Sequence[str], device: torch.device) -> Condition:
        """Encode prompts by CLIP."""
        return Condition(self.pipe.encode_prompt(list(prompts), device, 1, False)[0])

    def call(self, x: Tensor, t: Tensor, condition: Condition) -> tuple[tuple[Tensor, ...], dict[str, Any]]:
        """Return the denoiser's arguments: latents, timesteps and text states."""
        return (x, t), {"encoder_hidden_states": condition.text, **self.told(x)}


def text_alone(unet: UNet2DConditionModel) -> bool:
    """Return whether a UNet needs no class, image or noise level beside the text (upscalers do)."""
    config = unet.config
    classes = config.class_embed_type is not None or config.num_class_embeds is not None
    return not classes and config.encoder_hid_dim_type in (None, "text_proj")


def latent_channels(pipe: Any) -> int | None:
    """Return the channels of the VAE's latents, None without a VAE; for inpainting, a denoiser takes more."""
    vae = getattr(pipe, "vae", None)
    return None if vae is None else vae.config.latent_channels
