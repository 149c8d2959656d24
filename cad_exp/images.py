"""Image files of a run: written once, named so that the same image of two variants has the same name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from .shots import Shot

PER_PROMPT = 4  # pictures of each prompt on the sheet
PROMPTS = 8  # of the retention prompts on the sheet


def file_name(shot: Shot) -> str:
    """`concept/a_photo_of_a_church-0000100000.png`"""
    words = "_".join("".join(c if c.isalnum() else " " for c in shot.prompt).split())[:60]
    return f"{shot.purpose}/{words}-{shot.seed:010d}.png"


def save(folder: Path, images: np.ndarray) -> None:
    """Write uint8 images (N, H, W, 3) as 0000.png, 0001.png, ..."""
    for index, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{index:04d}.png", format="PNG")


def load(files: Sequence[Path]) -> np.ndarray:
    """Read images of one size: (N, H, W, 3) uint8."""
    return np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files])


def sheet_choice(shots: list[Shot]) -> dict[str, list[int]]:
    """prompt -> numbers of a few shots: the concept's prompts and an even choice of the others."""
    rows: dict[str, list[int]] = {}
    for index, shot in enumerate(shots):
        rows.setdefault(shot.prompt, []).append(index)
    concept = list(dict.fromkeys(s.prompt for s in shots if s.purpose == "concept"))
    others = [prompt for prompt in rows if prompt not in concept]
    even = np.linspace(0, len(others) - 1, min(PROMPTS, len(others))).round().astype(int)
    return {prompt: rows[prompt][:PER_PROMPT] for prompt in [*concept[:3], *(others[index] for index in even)]}
