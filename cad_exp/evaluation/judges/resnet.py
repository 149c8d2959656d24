"""ResNet-50 of torchvision (IMAGENET1K_V2): which of the 1,000 ImageNet classes an image shows."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from cad_exp.evaluation.judge_sources import version, weights_digest
from cad_exp.evaluation.judges.weights import fill
from cad_exp.utils.errors import UserError, closest

BATCH = 32


class ResNet:
    """The most likely class of each image, by the transforms that belong to the weights (232 px, 224 px of its centre).

    Classes bear torchvision's names; among them are the ten of Imagenette: tench 0, English springer 217, cassette
    player 482, chain saw 491, church 497, French horn 566, garbage truck 569, gas pump 571, golf ball 574, parachute
    701.
    """

    resolution = 224

    def __init__(self, weights: Path, device: str | torch.device = "cpu"):
        from torchvision.models import ResNet50_Weights

        self.weights, self.device = weights, torch.device(device)
        self.classes: list[str] = ResNet50_Weights.IMAGENET1K_V2.meta["categories"]
        self.transform = ResNet50_Weights.IMAGENET1K_V2.transforms()
        self.definition: dict[str, Any] = {
            "judge": "ResNet-50, most likely of 1,000 ImageNet classes",
            "library": version("torchvision"),
            "weights": weights_digest(weights),
            "resolution": self.resolution,
        }

    @cached_property
    def network(self) -> torch.nn.Module:
        """The network, loaded when it is first asked."""
        from torchvision.models import resnet50

        network: torch.nn.Module = fill(resnet50(), self.weights, "torchvision's ResNet-50")
        return network.to(self.device)

    @torch.no_grad()
    def classify(self, images: np.ndarray) -> tuple[list[str], np.ndarray]:
        """Return name and probability (N,) of the most likely class of uint8 images (N, H, W, 3)."""
        names, probabilities = [], []
        for start in range(0, len(images), BATCH):
            batch = [self.transform(Image.fromarray(image)) for image in images[start : start + BATCH]]
            best = self.network(torch.stack(batch).to(self.device)).softmax(1).max(1)
            names += [self.classes[index] for index in best.indices.tolist()]
            probabilities.append(best.values.cpu().numpy())
        return names, np.concatenate(probabilities)

    def log_odds(self, images: torch.Tensor, label: str) -> torch.Tensor:
        """Return log p / (1 - p) (B,) of a class in images (B, 3, H, W) in 0..1; differentiable.

        Raises UserError for a class that it does not know.
        """
        if label not in self.classes:
            close = closest(label, self.classes)
            hint = f": did you mean '{close}'?" if close else ""
            raise UserError(f"ResNet-50 knows no class '{label}' among the 1,000 of ImageNet{hint}")
        index = self.classes.index(label)
        logits: torch.Tensor = self.network(self.transform(images.to(self.device).float()))
        return logits[:, index] - torch.cat([logits[:, :index], logits[:, index + 1 :]], 1).logsumexp(1)
