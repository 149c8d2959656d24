"""Stable Diffusion XL: a UNet, two text encoders, pooled text and sizes as further conditions; also SDXL-Turbo."""

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import StableDiffusionXLPipeline, UNet2DConditionModel
from torch import Tensor

from cad_exp.models.families.condition import Condition
from cad_exp.models.families.stable_diffusion import UNetFamily, latent_channels, text_alone


class StableDiffusionXL(UNetFamily):
    """SDXL (arXiv 2307.01952). SDXL-Turbo has the same components and a recipe with guidance 0: it is distilled."""

    title = "Stable Diffusion XL"
    pipelines = (StableDiffusionXLPipeline,)

    @classmethod
    def fits(cls, pipe: Any) -> bool:
        """Return whether a pipeline has SDXL's UNet, for text and sizes, and two text encoders."""
        unet = getattr(pipe, "unet", None)
        if not isinstance(unet, UNet2DConditionModel) or unet.config.addition_embed_type != "text_time":
            return False
        encoders: list[Any] = [getattr(pipe, name, None) for name in ("text_encoder", "text_encoder_2")]
        if None in encoders or unet.config.in_channels != latent_channels(pipe) or not text_alone(unet):
            return False
        # Six numbers of sizes beside the pooled text; the refiner takes an aesthetic score in place of two of them.
        wide = 6 * unet.config.addition_time_embed_dim + encoders[1].config.projection_dim
        return bool(unet.config.projection_class_embeddings_input_dim == wide)

    def encode(self, prompts: Sequence[str], device: torch.device) -> Condition:
        """Encode prompts by both CLIPs, and by the second one's pooled state."""
        text, _, pooled, _ = self.pipe.encode_prompt(list(prompts), None, device, 1, False)
        if self.pipe.config.get("force_zeros_for_empty_prompt"):
            # The unconditional branch that such a checkpoint is sampled with is not the empty prompt but zeros.
            said = torch.tensor([bool(prompt) for prompt in prompts], device=text.device)
            text, pooled = text * said.view(-1, 1, 1), pooled * said.view(-1, 1)
        return Condition(text, {"pooled": pooled})

    def call(self, x: Tensor, t: Tensor, condition: Condition) -> tuple[tuple[Tensor, ...], dict[str, Any]]:
        """Return the denoiser's arguments, with pooled states and the images' sizes."""
        height, width = (side * self.scale for side in x.shape[-2:])
        sizes = torch.tensor([[height, width, 0, 0, height, width]], device=x.device, dtype=x.dtype)
        added = {"text_embeds": condition.extras["pooled"], "time_ids": sizes.expand(len(x), -1)}
        return (x, t), {"encoder_hidden_states": condition.text, "added_cond_kwargs": added, **self.told(x)}
