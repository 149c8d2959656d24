"""Inception v3 of torch-fidelity (the 2015-12-05 weights): the 2,048 features of FID and KID."""

from __future__ import annotations

import io
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cad_exp.data.image_folder import check, image_files, read
from cad_exp.evaluation.distances import Statistics
from cad_exp.evaluation.judge_sources import version, weights_digest
from cad_exp.evaluation.judges.weights import fill
from cad_exp.utils.errors import UserError

BATCH = 32


class Inception:
    """Pooled features of images, which the network itself resizes to 299 pixels as TensorFlow 1 did."""

    resolution, width = 299, 2048

    def __init__(self, weights: Path, device: str | torch.device = "cpu"):
        self.weights, self.device = weights, torch.device(device)
        self.definition: dict[str, Any] = {
            "judge": "Inception v3 (2015-12-05), 2048 pooled features",
            "library": version("torch_fidelity"),
            "weights": weights_digest(weights),
            "resolution": self.resolution,
        }

    @cached_property
    def network(self) -> torch.nn.Module:
        """The network, loaded when it is first asked."""
        return fill(_empty(), self.weights, "torch-fidelity's Inception v3").to(self.device)

    @torch.no_grad()
    def features(self, images: np.ndarray) -> np.ndarray:
        """Return features (N, 2048) fp32 of uint8 images (N, H, W, 3)."""
        found = [np.zeros((0, self.width), np.float32)]
        for start in range(0, len(images), BATCH):
            batch = (
                torch.from_numpy(np.ascontiguousarray(images[start : start + BATCH])).permute(0, 3, 1, 2).contiguous()
            )
            found.append(self.network(batch.to(self.device))[0].float().cpu().numpy())
        return np.concatenate(found)

    def of_folder(self, folder: Path) -> np.ndarray:
        """Return features (M, 2048) of all images in a folder, of whatever sizes."""
        check(folder, "judge.inception.reference", 2)
        return np.concatenate([self.features(np.asarray(read(file))[None]) for file in image_files(folder)])


def _empty() -> torch.nn.Module:
    """Return torch-fidelity's network, not yet filled.

    By itself it would download its weights, or unpickle a file of them.
    """
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    class Unfilled(FeatureExtractorInceptionV3):  # type: ignore[misc]  # a library without types
        def load_state_dict(self, state: dict[str, torch.Tensor], *args: Any, **kwargs: Any) -> Any:
            """Load weights; do nothing when there are none."""
            return super().load_state_dict(state, *args, **kwargs) if state else None

    nothing = io.BytesIO()
    torch.save({}, nothing)
    nothing.seek(0)
    return Unfilled("inception-v3-compat", ["2048"], feature_extractor_weights_path=nothing)


def read_statistics(file: Path) -> Statistics:
    """Read stored statistics: `mu` (F,), `sigma` (F, F) and, if known, `n`. UserError for anything else."""
    try:
        with np.load(file, allow_pickle=False) as stored:
            mean, covariance = stored["mu"].astype(np.float64), stored["sigma"].astype(np.float64)
            number = int(stored["n"]) if "n" in stored.files else None
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"'{file}' does not hold the arrays mu and sigma of FID's reference ({error})") from error
    if mean.shape != (Inception.width,) or covariance.shape != (Inception.width, Inception.width):
        raise UserError(
            f"'{file}' is not of Inception's {Inception.width} features: mu is {mean.shape}, sigma {covariance.shape}"
        )
    return Statistics(mean, covariance, number)
