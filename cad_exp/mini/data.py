"""Draws of the mini world, made once by worker processes and cached as arrays.

The splits take disjoint ranges of seeds, so that the judge never saw a picture that the generator was trained on.
"""

import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from cad_exp.mini.train import Progress

SPLITS = {"clip": 20_000_000, "test": 30_000_000, "judge": 10_000_000, "generator": 0}
SIZES = {"generator": 40_000, "judge": 20_000, "clip": 20_000, "test": 4_000}
CHUNK = 250


@dataclass
class Draws:
    """`images` uint8 (N, 64, 64, 3), memory-mapped; `labels` int64 (N, 4): object, style, naked, colour."""

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def tensor(self, index: np.ndarray, device: str | torch.device = "cpu") -> torch.Tensor:
        """Return images of these indices as float32 (B, 3, 64, 64) in [-1, 1]."""
        return to_tensor(self.images[index], device)


def to_tensor(images: np.ndarray, device: str | torch.device = "cpu") -> torch.Tensor:
    """Turn uint8 (N, H, W, 3) into float32 (N, 3, H, W) in [-1, 1]."""
    return torch.from_numpy(np.array(images)).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1


def draw_chunk(seeds: range) -> tuple[np.ndarray, np.ndarray]:
    """Draw the pictures of these seeds, uint8 (N, 64, 64, 3), with labels (N, 4) int64."""
    from cad_exp.mini import world  # here, so that a worker that only starts does not pay for it

    pictures, scenes = zip(*(world.draw(seed) for seed in seeds), strict=True)
    return np.stack(pictures), np.array([[s.object, s.style, int(s.naked), s.colour] for s in scenes], np.int64)


def draws(split: str, work: str | Path, count: int | None = None) -> Draws:
    """Return the first `count` draws of a split; draw them now if the work folder does not hold enough."""
    count = count or SIZES[split]
    folder = Path(work)
    images, labels = folder / f"{split}.npy", folder / f"{split}_labels.npy"
    if not labels.exists() or len(np.load(labels, mmap_mode="r")) < count:
        make(split, folder, count)
    return Draws(np.load(images, mmap_mode="r")[:count], np.load(labels)[:count])


def make(split: str, folder: Path, count: int) -> None:
    """Draw into temporary files that are renamed at the end; the labels come last and mean "complete"."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{split}_labels.npy").unlink(missing_ok=True)
    start = SPLITS[split]
    chunks = [range(start + i, start + min(i + CHUNK, count)) for i in range(0, count, CHUNK)]
    temporary = folder / f"{split}.tmp.npy"
    images = np.lib.format.open_memmap(temporary, "w+", np.uint8, (count, 64, 64, 3))
    labels = np.zeros((count, 4), np.int64)
    with ProcessPoolExecutor(os.cpu_count()) as pool, Progress(f"draw {split}", count) as progress:
        for chunk, (pictures, scenes) in zip(chunks, pool.map(draw_chunk, chunks), strict=True):
            place = slice(chunk.start - start, chunk.stop - start)
            images[place], labels[place] = pictures, scenes
            progress.at(place.stop)
    images.flush()
    os.replace(temporary, folder / f"{split}.npy")
    np.save(folder / f"{split}_labels.tmp.npy", labels)
    os.replace(folder / f"{split}_labels.tmp.npy", folder / f"{split}_labels.npy")
