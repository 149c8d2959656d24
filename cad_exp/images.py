"""Image files: arrays of pixels written as PNG and read again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image


def save(folder: Path, images: np.ndarray) -> None:
    """Write uint8 images (N, H, W, 3) as 0000.png, 0001.png, ..."""
    for index, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{index:04d}.png", format="PNG")


def load(files: Sequence[Path]) -> np.ndarray:
    """Read images of one size: (N, H, W, 3) uint8."""
    return np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files])
