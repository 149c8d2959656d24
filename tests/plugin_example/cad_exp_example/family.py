"""A family: how prompts are encoded and the denoiser called, for pipelines that no other family fits."""

from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from cad_exp.models.families.condition import Condition
from cad_exp.models.families.stable_diffusion import StableDiffusion


class Classed(StableDiffusion):
    """Stable Diffusion whose UNet also takes the number of a class; here the first one for every image."""

    title = "Stable Diffusion with classes"

    @classmethod
    def fits(cls, pipe: Any) -> bool:
        unet = getattr(pipe, "unet", None)
        return isinstance(unet, UNet2DConditionModel) and unet.config.num_class_embeds is not None

    def call(self, x: Tensor, t: Tensor, condition: Condition) -> tuple[tuple, dict[str, Any]]:
        arguments, settings = super().call(x, t, condition)
        return arguments, settings | {"class_labels": torch.zeros(len(x), dtype=torch.long, device=x.device)}
