"""Stable Diffusion 1 and 2: a UNet, one text encoder, eps or v prediction."""

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from cad_exp.families.base import Family
from cad_exp.families.condition import Condition


class StableDiffusion(Family):
    """Text states alone condition the UNet (arXiv 2112.10752)."""

    title = "Stable Diffusion 1 or 2"

    @classmethod
    def fits(cls, pipe: Any) -> bool:
        unet, encoder = getattr(pipe, "unet", None), getattr(pipe, "text_encoder", None)
        if not isinstance(unet, UNet2DConditionModel) or not isinstance(encoder, nn.Module):
            return False
        plain = unet.config.addition_embed_type is None and unet.config.class_embed_type is None
        return plain and not hasattr(pipe, "text_encoder_2") and unet.config.in_channels == latent_channels(pipe)

    def encode(self, prompts: Sequence[str], device: torch.device) -> Condition:
        return Condition(self.pipe.encode_prompt(list(prompts), device, 1, False)[0])

    def call(self, x: Tensor, t: Tensor, condition: Condition) -> tuple[tuple, dict[str, Any]]:
        return (x, t), {"encoder_hidden_states": condition.text}


def latent_channels(pipe: Any) -> int | None:
    """Channels of the VAE's latents, None without a VAE; a denoiser that takes more is for inpainting or the like."""
    vae = getattr(pipe, "vae", None)
    return None if vae is None else vae.config.latent_channels
