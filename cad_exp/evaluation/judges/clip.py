"""CLIP (ViT-B/32 or ViT-L/14) through transformers: the cosine of an image and its prompt."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from cad_exp.evaluation.judge_sources import version, weights_digest
from cad_exp.utils import console
from cad_exp.utils.errors import UserError

BATCH = 32
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # of CLIP's training images


class Clip:
    """Images are resized (bicubic, shorter side) and cut to the model's square; captions are cut to its length."""

    def __init__(self, weights: Path, model: str, device: str | torch.device = "cpu"):
        import json

        self.weights, self.device, self.told = weights, torch.device(device), False
        settings = json.loads((weights / "config.json").read_text(encoding="utf-8"))
        self.resolution = int(settings.get("vision_config", {}).get("image_size", 224))
        self.length = int(settings.get("text_config", {}).get("max_position_embeddings", 77))
        self.definition: dict[str, Any] = {
            "judge": f"CLIP {model}, cosine",
            "library": version("transformers"),
            "weights": weights_digest(weights),
            "resolution": self.resolution,
            "captions": f"cut to {self.length} tokens",
        }

    @cached_property
    def parts(self) -> tuple[Any, Any]:
        """The network and its tokenizer."""
        from transformers import CLIPModel, CLIPTokenizer

        try:
            network = CLIPModel.from_pretrained(self.weights, local_files_only=True)
            tokenizer = CLIPTokenizer.from_pretrained(self.weights, local_files_only=True)
        except (OSError, ValueError, TypeError) as error:
            raise UserError(f"'{self.weights}' is not a transformers CLIP model: {error}") from error
        return network.eval().requires_grad_(False).to(self.device), tokenizer

    def tokens(self, prompts: list[str]) -> tuple[torch.Tensor, torch.Tensor, int]:
        """Return token ids and mask (N, L), and how many of the prompts had to be cut."""
        tokenizer = self.parts[1]
        cut = sum(len(ids) > self.length for ids in tokenizer(prompts, verbose=False)["input_ids"])
        ids = tokenizer(prompts, padding=True, truncation=True, max_length=self.length, return_tensors="pt")
        return ids["input_ids"].to(self.device), ids["attention_mask"].to(self.device), cut

    @torch.no_grad()
    def texts(self, prompts: list[str]) -> torch.Tensor:
        """Return unit vectors (N, D) of prompts; say once that some are too long."""
        network, found = self.parts[0], []
        for start in range(0, len(prompts), BATCH):
            ids, mask, more = self.tokens(prompts[start : start + BATCH])
            pooled = network.text_model(input_ids=ids, attention_mask=mask).pooler_output
            found.append(F.normalize(network.text_projection(pooled), dim=-1))
            if more and not self.told:
                self.told = True
                console.say(f"  CLIP score: prompts of more than {self.length} tokens are cut", style="yellow")
        return torch.cat(found)

    def embed(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return unit vectors (B, D) of images (B, 3, H, W) in 0..1 of the model's size; differentiable."""
        network = self.parts[0]
        mean, std = (torch.tensor(value, device=self.device).view(3, 1, 1) for value in (MEAN, STD))
        pooled = network.vision_model(pixel_values=(pixels.to(self.device) - mean) / std).pooler_output
        return F.normalize(network.visual_projection(pooled), dim=-1)

    def fitted(self, image: np.ndarray) -> torch.Tensor:
        """Return a uint8 image (H, W, 3) as CLIP takes it: (3, side, side) in 0..1."""
        from torchvision.transforms.functional import InterpolationMode, center_crop, resize

        picture = resize(Image.fromarray(image), self.resolution, InterpolationMode.BICUBIC)
        picture = center_crop(picture, [self.resolution, self.resolution])
        return torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 255

    @torch.no_grad()
    def scores(self, images: np.ndarray, prompts: list[str]) -> np.ndarray:
        """Return the cosines (N,), in -1..1, of uint8 images (N, H, W, 3) and their prompts."""
        distinct = list(dict.fromkeys(prompts))
        place = {prompt: index for index, prompt in enumerate(distinct)}
        texts = self.texts(distinct)[[place[prompt] for prompt in prompts]]
        parts = [images[i : i + BATCH] for i in range(0, len(images), BATCH)]
        seen = torch.cat([self.embed(torch.stack([self.fitted(image) for image in part])) for part in parts])
        return (seen * texts).sum(1).float().cpu().numpy()

    def similarity(self, images: torch.Tensor, prompt: str) -> torch.Tensor:
        """Return the cosine (B,) of images (B, 3, H, W) in 0..1 and a prompt; differentiable."""
        from torchvision.transforms.functional import InterpolationMode, center_crop, resize

        small = resize(images.float(), self.resolution, InterpolationMode.BICUBIC, antialias=True)
        return self.embed(center_crop(small, [self.resolution, self.resolution])) @ self.texts([prompt])[0]
