"""Image files of a run: written once, named so that the same image of two variants has the same name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from PIL import Image

from .results import atomic

if TYPE_CHECKING:
    from .evaluation import Shot

PER_PROMPT = 4  # pictures of each prompt on the sheet
PROMPTS = 8  # of the retention prompts on the sheet


def file_name(shot: Shot) -> str:
    """`concept/a_photo_of_a_church-0000100000.png`"""
    words = "_".join("".join(c if c.isalnum() else " " for c in shot.prompt).split())[:60]
    return f"{shot.purpose}/{words}-{shot.seed:010d}.png"


def save(folder: Path, shots: list[Shot], pictures: dict[str, np.ndarray]) -> None:
    """Writes `folder`/variant/purpose/prompt-seed.png."""
    for variant, images in pictures.items():
        for shot, image in zip(shots, images, strict=True):
            path = folder / variant / file_name(shot)
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic(path) as draft:
                Image.fromarray(image).save(draft, format="PNG")


def save_table(path: Path, table: pd.DataFrame) -> None:
    with atomic(path) as draft:
        table.to_parquet(draft)


def by_prompt(shots: list[Shot], pictures: dict[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
    """variant -> prompt -> a few pictures (k, H, W, 3): the concept's prompts and an even choice of the others."""
    rows: dict[str, list[int]] = {}
    for index, shot in enumerate(shots):
        rows.setdefault(shot.prompt, []).append(index)
    concept = list(dict.fromkeys(s.prompt for s in shots if s.purpose == "concept"))
    others = [prompt for prompt in rows if prompt not in concept]
    even = np.linspace(0, len(others) - 1, min(PROMPTS, len(others))).round().astype(int)
    chosen = concept[:3] + [others[index] for index in even]
    return {
        variant: {prompt: images[rows[prompt][:PER_PROMPT]] for prompt in chosen}
        for variant, images in pictures.items()
    }
