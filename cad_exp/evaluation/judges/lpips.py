"""LPIPS with AlexNet (arXiv 1801.03924, version 0.1), by torchmetrics, which ships the linear weights."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from cad_exp.evaluation.judge_sources import version, weights_digest
from cad_exp.evaluation.judges.weights import fill
from cad_exp.utils.errors import UserError

BATCH = 16
SMALLEST = 32  # pixels; AlexNet's last map vanishes below


class Lpips:
    """Distance of two images of equal size, 0 = equal. resize: side to which both are brought first; None: as is."""

    def __init__(self, weights: Path, resize: int | None = None, device: str | torch.device = "cpu"):
        if resize is not None and resize < SMALLEST:
            raise UserError(f"judge.lpips.resize must be at least {SMALLEST} pixels, or null: as the images are")
        self.weights, self.resize, self.device = weights, resize, torch.device(device)
        self.definition: dict[str, Any] = {
            "judge": "LPIPS 0.1, AlexNet",
            "library": version("torchmetrics"),
            "backbone": version("torchvision"),
            "weights": weights_digest(weights),
            "resolution": resize or "full size",
        }

    @cached_property
    def network(self) -> torch.nn.Module:
        """The network, loaded when it is first asked."""
        from torchmetrics.functional.image.lpips import _LPIPS
        from torchvision.models import alexnet

        network = _LPIPS(net="alex", pnet_rand=True)  # the linear layers of the package, the backbone still random
        features = fill(alexnet().features, self.weights, "torchvision's AlexNet", "features.")
        filled = {f"net.{key}": value for key, value in self._slices(features).items()}
        network.load_state_dict(network.state_dict() | filled)
        return network.eval().requires_grad_(False).to(self.device)

    @staticmethod
    def _slices(features: torch.nn.Sequential) -> dict[str, torch.Tensor]:
        """Return the state dict of AlexNet's layers under the names that LPIPS gives them: cut after each ReLU."""
        cuts, state = (2, 5, 8, 10, 12), {}
        for key, value in features.state_dict().items():
            layer = int(key.split(".")[0])
            state[f"slice{next(i for i, end in enumerate(cuts, 1) if layer < end)}.{key}"] = value
        return state

    def _seen(self, images: np.ndarray) -> torch.Tensor:
        """Return uint8 (N, H, W, 3) as (N, 3, h, w) in [-1, 1]."""
        if self.resize is not None:
            size = (self.resize, self.resize)
            images = np.stack([np.asarray(Image.fromarray(each).resize(size)) for each in images])  # PIL's bicubic
        return torch.from_numpy(np.array(images)).permute(0, 3, 1, 2).to(self.device).float() / 127.5 - 1

    @torch.no_grad()
    def distance(self, images: np.ndarray, reference: np.ndarray) -> np.ndarray:
        """Return LPIPS (N,) of uint8 images (N, H, W, 3) to their references of the same shape."""
        if self.resize is None and min(images.shape[1:3]) < SMALLEST:
            raise UserError(f"LPIPS needs images of at least {SMALLEST} pixels: judge.lpips.resize=64 enlarges them")
        parts = [slice(i, i + BATCH) for i in range(0, len(images), BATCH)]
        found = [self.network(self._seen(images[part]), self._seen(reference[part])) for part in parts]
        return torch.cat([each.flatten() for each in found]).float().cpu().numpy()
