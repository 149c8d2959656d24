"""FLUX.1: a transformer of double-stream and single-stream blocks, flow matching, guidance distilled."""

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import FluxPipeline, FluxTransformer2DModel
from torch import Tensor

from cad_exp.models.families.base import Family, Ticker
from cad_exp.models.families.condition import Condition
from cad_exp.models.families.flow import UNITS, Flow
from cad_exp.models.families.stable_diffusion import latent_channels


class Flux(Family):
    """FLUX.1-schnell, and FLUX.1-dev, whose network is told the model's own guidance (`model.guidance`) as a number.

    Both are distilled: trajectories are unguided whatever `noisy_latents.guidance` says, but for 0, the base prompt's.
    The network sees latents as a sequence of 2 x 2 patches; outside of this class they are (B, C, h, w).
    """

    title = "FLUX.1"
    pipelines = (FluxPipeline,)
    patch = 2

    def __init__(self, pipe: Any, name: str, guidance: float):
        super().__init__(pipe, name, guidance)
        self.distilled = True

    @classmethod
    def fits(cls, pipe: Any) -> bool:
        """Return whether a pipeline has FLUX's transformer, for text alone."""
        network = getattr(pipe, "transformer", None)
        if not isinstance(network, FluxTransformer2DModel):
            return False
        return bool(network.config.in_channels == 4 * (latent_channels(pipe) or 0))

    def make_schedule(self) -> Flow:
        """Make the flow schedule, whose grid starts from evenly spaced s."""
        return Flow(self.pipe.scheduler.config, even=True)

    @property
    def guided(self) -> bool:
        """Whether the network takes a guidance number (dev does, schnell does not)."""
        guided: bool = self.config.guidance_embeds
        return guided

    @property
    def length(self) -> int:
        """Tokens that T5 reads of a prompt, as the two models' cards say."""
        return 512 if self.guided else 256

    @property
    def channels(self) -> int:
        """Channels of the latents; the network sees four times as many."""
        channels: int = self.config.in_channels // 4
        return channels

    @property
    def resolution(self) -> int:
        """The side in pixels of the images that the pipeline makes."""
        side: int = self.pipe.default_sample_size * self.scale
        return side

    def encode(self, prompts: Sequence[str], device: torch.device) -> Condition:
        """Encode prompts by T5, and by CLIP's pooled state."""
        text, pooled, _ = self.pipe.encode_prompt(list(prompts), None, device, 1, max_sequence_length=self.length)
        return Condition(text, {"pooled": pooled})

    def call(self, x: Tensor, t: Tensor, condition: Condition) -> tuple[tuple[Tensor, ...], dict[str, Any]]:
        """Return the denoiser's arguments, with the place of every patch and, for dev, the model's own guidance."""
        rows, columns = x.shape[-2] // 2, x.shape[-1] // 2
        places = torch.zeros(rows, columns, 3, device=x.device, dtype=x.dtype)
        places[..., 1] = torch.arange(rows, device=x.device)[:, None]
        places[..., 2] = torch.arange(columns, device=x.device)
        how = {"guidance": torch.full((len(x),), self.guidance, device=x.device)} if self.guided else {}
        return (self.packed(x),), how | {
            "timestep": t.to(x.dtype) / UNITS,
            "encoder_hidden_states": condition.text,
            "pooled_projections": condition.extras["pooled"],
            "img_ids": places.view(-1, 3),
            "txt_ids": torch.zeros(condition.text.shape[1], 3, device=x.device, dtype=x.dtype),
        }

    def packed(self, latents: Tensor) -> Tensor:
        """Turn (B, C, h, w) into (B, h w / 4, 4 C): every 2 x 2 patch is a token."""
        batch, channels, height, width = latents.shape
        patches = latents.view(batch, channels, height // 2, 2, width // 2, 2).permute(0, 2, 4, 1, 3, 5)
        return patches.reshape(batch, height * width // 4, channels * 4)

    def output(self, raw: Tensor, x: Tensor) -> Tensor:
        """Turn (B, h w / 4, 4 C) into latents like x: the inverse of `packed`."""
        batch, channels, height, width = x.shape
        patches = raw.view(batch, height // 2, width // 2, channels, 2, 2).permute(0, 3, 1, 4, 2, 5)
        return patches.reshape(x.shape)

    def image_guidance(self, guidance: float) -> float:
        """Return the guidance of dev, which takes it as a number; 0 for schnell."""
        return guidance if self.guided else 0.0

    def settings(self, tick: Ticker) -> dict[str, Any]:
        """Return further arguments of the pipeline's own call, with the number of T5's tokens."""
        return super().settings(tick) | {"max_sequence_length": self.length}
