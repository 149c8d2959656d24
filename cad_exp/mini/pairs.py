"""What both denoisers learn from: cached latents of the drawings, each with a caption that is true of it."""

import os
from pathlib import Path

import numpy as np
import torch

from cad_exp.mini.autoencoder import encoded, load
from cad_exp.mini.clip import Truth
from cad_exp.mini.data import draws
from cad_exp.mini.train import Progress, device

EMPTY = 0.1  # share of empty captions (classifier-free guidance)


def latents(work: str | Path, count: int | None = None) -> np.ndarray:
    """Run the stage `latents`: encode the generator's pictures as scaled latents, float16 (N, 4, 8, 8), cached."""
    path, data = Path(work) / "latents.npy", draws("generator", work, count)
    if path.exists():
        cached: np.ndarray = np.load(path, mmap_mode="r")
        if len(cached) >= len(data):
            return cached[: len(data)]
    model = load(work).to(device()).eval()
    result, done = np.zeros((len(data), 4, 8, 8), np.float16), 0
    with Progress("latents", len(data)) as progress:
        for z in encoded(model, data, np.arange(len(data))):
            result[done : done + len(z)] = (z * model.config.scaling_factor).numpy()
            progress.at(done := done + len(z))
    np.save(path.with_suffix(".tmp.npy"), result)
    os.replace(path.with_suffix(".tmp.npy"), path)
    return result


class Pairs:
    """Latents and captions; `captions` lists every caption that there is, and last the empty one."""

    def __init__(self, work: str | Path, count: int | None = None) -> None:
        truth = Truth()
        self.captions = [*truth.captions, ""]
        self.latents = torch.from_numpy(np.array(latents(work, count)))
        self.rows = truth.rows(draws("generator", work, count).labels)
        self.true = [np.flatnonzero(row.numpy()) for row in truth.table]

    def draw(self, rng: np.random.Generator, batch: int) -> tuple[torch.Tensor, np.ndarray]:
        """Draw latents (B, 4, 8, 8) fp32 and which caption each has (B,), a tenth of them the empty one."""
        index = rng.integers(0, len(self.latents), batch)
        said = [rng.choice(self.true[row]) for row in self.rows[index]]
        return self.latents[index].float(), np.where(rng.random(batch) < EMPTY, len(self.captions) - 1, said)
