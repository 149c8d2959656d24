"""What every judge offers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import torch


class Judge(Protocol):
    """Images are uint8 (N, H, W, 3) where numbers are stored, float (B, 3, H, W) in 0..1 where gradients flow.

    definition, clip_definition: library, version, weights, resolution and thresholds of the judge and of its CLIP.
    definitions: the same for each thing that is judged: object, style, nudity, clothed, features, clip, distance;
    what is missing is not judged. threshold: probability or score above which a person counts as naked.
    identity: all that the stored judgements depend on; thresholds, which are applied afterwards, do not belong to it.
    """

    definition: dict[str, Any]
    clip_definition: dict[str, Any]
    definitions: dict[str, dict[str, Any]]
    identity: dict[str, Any]
    threshold: float

    def labels(self, images: np.ndarray) -> tuple[pd.DataFrame, np.ndarray]:
        """One row per image with what was found, and features (N, F) for FID."""
        ...

    def knows(self, kind: str, label: str) -> bool:
        """Whether it can say if an image shows this."""
        ...

    def clip_scores(self, images: np.ndarray, prompts: list[str]) -> np.ndarray:
        """Cosine of image and prompt (N,), -1..1."""
        ...

    def distance(self, images: np.ndarray, reference: np.ndarray) -> np.ndarray:
        """Perceptual distance of each image to its reference (N,), 0 = equal."""
        ...

    def log_odds(self, images: torch.Tensor, kind: str, label: str) -> torch.Tensor:
        """log p / (1 - p) of a label (B,), differentiable; UserError for what it does not know."""
        ...

    def similarity(self, images: torch.Tensor, prompt: str) -> torch.Tensor:
        """Cosine (B,) of images and a prompt, differentiable."""
        ...

    def question(self, prompt: str) -> tuple[str, str]:
        """Kind and label that a prompt asks for; UserError if it names nothing that the judge knows."""
        ...

    def on(self, device: str | torch.device) -> Judge:
        """The judge on a device."""
        ...
