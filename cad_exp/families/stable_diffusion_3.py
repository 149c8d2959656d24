"""Stable Diffusion 3 and 3.5: a transformer in which text and image attend together, flow matching."""

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import SD3Transformer2DModel
from torch import Tensor

from cad_exp.families.base import Family
from cad_exp.families.condition import Condition
from cad_exp.families.flow import Flow


class StableDiffusion3(Family):
    """MMDiT (arXiv 2403.03206): two CLIP encoders and T5, whose place is filled with zeros where it is left out."""

    title = "Stable Diffusion 3"

    @classmethod
    def fits(cls, pipe: Any) -> bool:
        return isinstance(getattr(pipe, "transformer", None), SD3Transformer2DModel)

    def make_schedule(self) -> Flow:
        return Flow(self.pipe.scheduler.config)

    @property
    def patch(self) -> int:
        return self.denoiser.config.patch_size

    def encode(self, prompts: Sequence[str], device: torch.device) -> Condition:
        text, _, pooled, _ = self.pipe.encode_prompt(list(prompts), None, None, device, 1, False)
        return Condition(text, {"pooled": pooled})

    def call(self, x: Tensor, t: Tensor, condition: Condition) -> tuple[tuple, dict[str, Any]]:
        return (x,), {
            "timestep": t,
            "encoder_hidden_states": condition.text,
            "pooled_projections": condition.extras["pooled"],
        }
