"""Stable Diffusion 3 and 3.5: a transformer in which text and image attend together, flow matching."""

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import SD3Transformer2DModel, StableDiffusion3Pipeline
from torch import Tensor

from cad_exp.models.families.base import Family, Ticker
from cad_exp.models.families.condition import Condition
from cad_exp.models.families.flow import Flow


class StableDiffusion3(Family):
    """MMDiT (arXiv 2403.03206): two CLIP encoders and T5, whose place is filled with zeros where it is left out."""

    title = "Stable Diffusion 3"
    pipelines = (StableDiffusion3Pipeline,)

    @classmethod
    def fits(cls, pipe: Any) -> bool:
        """Return whether a pipeline has Stable Diffusion 3's transformer."""
        return isinstance(getattr(pipe, "transformer", None), SD3Transformer2DModel)

    def make_schedule(self) -> Flow:
        """Make the flow schedule of the pipeline's scheduler."""
        return Flow(self.pipe.scheduler.config)

    @property
    def patch(self) -> int:
        """Latent pixels per side that the network sees as one."""
        patch: int = self.config.patch_size
        return patch

    @property
    def length(self) -> int:
        """Tokens in T5's place: 256, the pipeline's own number, which are zeros where T5 is left out.

        0 for a network whose text is no wider than the two CLIPs side by side: it was made without a T5 (`mini_dit`).
        """
        clips = sum(part.config.hidden_size for part in (self.pipe.text_encoder, self.pipe.text_encoder_2))
        meant = self.pipe.text_encoder_3 is not None or self.config.joint_attention_dim > clips
        return 256 if meant else 0

    def encode(self, prompts: Sequence[str], device: torch.device) -> Condition:
        """Encode prompts by CLIP and T5, and by CLIP's pooled states."""
        text, _, pooled, _ = self.pipe.encode_prompt(
            list(prompts), None, None, device, 1, False, max_sequence_length=self.length
        )
        return Condition(text, {"pooled": pooled})

    def call(self, x: Tensor, t: Tensor, condition: Condition) -> tuple[tuple[Tensor, ...], dict[str, Any]]:
        """Return the denoiser's arguments: latents, times, text states and pooled states."""
        return (x,), {
            "timestep": t,
            "encoder_hidden_states": condition.text,
            "pooled_projections": condition.extras["pooled"],
        }

    def settings(self, tick: Ticker) -> dict[str, Any]:
        """Return further arguments of the pipeline's own call, with the number of T5's tokens."""
        return super().settings(tick) | {"max_sequence_length": self.length}
