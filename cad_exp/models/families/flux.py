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
        network = getattr(pipe, "transformer", None)
        if not isinstance(network, FluxTransformer2DModel):
            return False
        return network.config.in_channels == 4 * (latent_channels(pipe) or 0)

    def make_schedule(self) -> Flow:
        return Flow(self.pipe.scheduler.config, even=True)

    @property
    def guided(self) -> bool:
        """Whether the network takes a guidance number (dev does, schnell does not)."""
        return self.denoiser.config.guidance_embeds

    @property
    def length(self) -> int:
        """Tokens that T5 reads of a prompt, as the two models' cards say."""
        return 512 if self.guided else 256

    @property
    def channels(self) -> int:
        return self.denoiser.config.in_channels // 4

    @property
    def resolution(self) -> int:
        return self.pipe.default_sample_size * self.scale

    def encode(self, prompts: Sequence[str], device: torch.device) -> Condition:
        text, pooled, _ = self.pipe.encode_prompt(list(prompts), None, device, 1, max_sequence_length=self.length)
        return Condition(text, {"pooled": pooled})

    def call(self, x: Tensor, t: Tensor, condition: Condition) -> tuple[tuple, dict[str, Any]]:
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
        """(B, C, h, w) to (B, h w / 4, 4 C): every 2 x 2 patch is a token."""
        batch, channels, height, width = latents.shape
        patches = latents.view(batch, channels, height // 2, 2, width // 2, 2).permute(0, 2, 4, 1, 3, 5)
        return patches.reshape(batch, height * width // 4, channels * 4)

    def output(self, raw: Tensor, x: Tensor) -> Tensor:
        """The inverse of `packed`, for latents like x."""
        batch, channels, height, width = x.shape
        patches = raw.view(batch, height // 2, width // 2, channels, 2, 2).permute(0, 3, 1, 4, 2, 5)
        return patches.reshape(x.shape)

    def image_guidance(self, guidance: float) -> float:
        return guidance if self.guided else 0.0

    def settings(self, tick: Ticker) -> dict[str, Any]:
        return super().settings(tick) | {"max_sequence_length": self.length}
