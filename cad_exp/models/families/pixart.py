"""PixArt-alpha and PixArt-Sigma: a transformer with cross-attention to T5's states, eps prediction."""

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import PixArtAlphaPipeline, PixArtSigmaPipeline, PixArtTransformer2DModel
from torch import Tensor

from cad_exp.models.families.base import Family, Ticker
from cad_exp.models.families.condition import Condition


class PixArt(Family):
    """PixArt (arXiv 2310.00426, 2403.04692): its network also predicts a variance, which samplers leave unused."""

    title = "PixArt"
    pipelines = (PixArtSigmaPipeline, PixArtAlphaPipeline)

    @classmethod
    def fits(cls, pipe: Any) -> bool:
        """Return whether a pipeline has PixArt's transformer."""
        return isinstance(getattr(pipe, "transformer", None), PixArtTransformer2DModel)

    @property
    def patch(self) -> int:
        """Latent pixels per side that the network sees as one."""
        patch: int = self.config.patch_size
        return patch

    def encode(self, prompts: Sequence[str], device: torch.device) -> Condition:
        """Encode prompts by T5, with the mask of their tokens."""
        text, mask, _, _ = self.pipe.encode_prompt(list(prompts), False, device=device)
        return Condition(text, {"mask": mask})

    def call(self, x: Tensor, t: Tensor, condition: Condition) -> tuple[tuple[Tensor, ...], dict[str, Any]]:
        """Return the denoiser's arguments, with the mask and the images' sizes."""
        return (x,), {
            "timestep": t,
            "encoder_hidden_states": condition.text,
            "encoder_attention_mask": condition.extras["mask"],
            "added_cond_kwargs": self._sizes(x),
        }

    def _sizes(self, x: Tensor) -> dict[str, Tensor | None]:
        """Return resolution (B, 2) and aspect ratio (B, 1) of the images, where the network was trained with them."""
        if not self.denoiser.use_additional_conditions:
            return {"resolution": None, "aspect_ratio": None}
        height, width = (side * self.scale for side in x.shape[-2:])
        sizes = torch.tensor([[height, width]], device=x.device, dtype=x.dtype).expand(len(x), -1)
        return {"resolution": sizes, "aspect_ratio": sizes[:, :1] / sizes[:, 1:]}

    def output(self, raw: Tensor, x: Tensor) -> Tensor:
        """Return the prediction without the variance."""
        return raw[:, : x.shape[1]]

    def settings(self, tick: Ticker) -> dict[str, Any]:
        """Return further arguments of the pipeline's own call: encode prompts as `encode`, keep the images' size."""
        # Prompts are encoded as in `encode`, images keep the size asked for, and the callback is of the old kind.
        told = {"callback": lambda step, t, latents: tick(step + 1, latents), "callback_steps": 1}
        return {**told, "clean_caption": False, "use_resolution_binning": False}
