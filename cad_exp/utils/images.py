"""Image files: arrays of pixels written as PNG and read again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

# Of 255. A decoder ripples by a few steps around one colour; the faintest drawing of the mini world spans 50.
BLANK_RANGE = 16


def blank(images: np.ndarray) -> np.ndarray:
    """Whether images (N, H, W, 3) uint8 are of one colour: no channel spans more than BLANK_RANGE. (N,) bool."""
    flat = images.reshape(len(images), -1, images.shape[-1])
    span = flat.max(1).astype(int) - flat.min(1)
    one_colour: np.ndarray = (span <= BLANK_RANGE).all(1)
    return one_colour


def save(folder: Path, images: np.ndarray) -> None:
    """Write uint8 images (N, H, W, 3) as 0000.png, 0001.png, ..."""
    for index, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{index:04d}.png", format="PNG")


def load(files: Sequence[Path]) -> np.ndarray:
    """Read images of one size: (N, H, W, 3) uint8."""
    return np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files])
