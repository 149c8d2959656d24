"""Noisy latents: the points (x_t, t, target) at which an objective is evaluated, sampled once and then fixed."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cad_exp.models.pipeline import DiffusionModel, Progress
from cad_exp.utils.errors import UserError
from cad_exp.utils.tensors import load_tensors, save_tensors

_TENSORS = ("x", "t", "base", "cond", "target")


@dataclass
class NoisyLatents:
    """Hold N points at which the model is asked, and its predictions there.

    x (N, C, h, w), as the predictions, is fp32 on the CPU; t (N,) int64. cond and base are the predictions under the
    concept's and the base prompt; target is the denoising target, if known.
    """

    x: Tensor
    t: Tensor
    base: Tensor | None
    cond: Tensor | None
    target: Tensor | None
    prompt: str
    base_prompt: str
    meta: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, part: slice | Tensor) -> "NoisyLatents":
        return self._each(lambda tensor: tensor[part])

    def to(self, device: torch.device) -> "NoisyLatents":
        """Move the noisy latents to a device."""
        return self._each(lambda tensor: tensor.to(device))

    def _each(self, change: Callable[[Tensor], Tensor]) -> "NoisyLatents":
        changed: dict[str, Any] = {
            name: None if getattr(self, name) is None else change(getattr(self, name)) for name in _TENSORS
        }
        return replace(self, **changed)

    def batches(self, size: int) -> Iterator["NoisyLatents"]:
        """Yield the noisy latents in order, in slices of at most `size`."""
        for start in range(0, len(self), size):
            yield self[start : start + size]

    @classmethod
    def join(cls, parts: Sequence["NoisyLatents"]) -> "NoisyLatents":
        """Trajectories that were walked apart, as if they had been walked together: same prompts, seeds in order."""
        first = parts[0]
        tensors: dict[str, Any] = {
            name: None if getattr(first, name) is None else torch.cat([getattr(p, name) for p in parts])
            for name in _TENSORS
        }
        seeds = [seed for part in parts for seed in part.meta["seeds"]]
        return cls(**tensors, prompt=first.prompt, base_prompt=first.base_prompt, meta={**first.meta, "seeds": seeds})

    def save(self, path: str | Path) -> Path:
        """Write a noisy latent file; returns `path`."""
        tensors = {name: getattr(self, name) for name in _TENSORS if getattr(self, name) is not None}
        meta = {"prompt": self.prompt, "base_prompt": self.base_prompt, "meta": self.meta}
        return save_tensors(path, "noisy_latents", tensors, meta)

    @classmethod
    def load(cls, path: str | Path) -> "NoisyLatents":
        """Read a noisy latent file. UserError if it is missing, damaged or of another kind."""
        tensors, meta = load_tensors(path, "noisy_latents")
        base, cond, target = (tensors.get(name) for name in ("base", "cond", "target"))
        return cls(tensors["x"], tensors["t"], base, cond, target, **meta)


def sample_trajectory(
    model: DiffusionModel,
    prompt: str,
    base_prompt: str = "",
    seeds: Sequence[int] = (0,),
    steps: int = 50,
    guidance: float = 3.0,
    batch_size: int = 16,
    progress: Progress | None = None,
) -> NoisyLatents:
    """Take the noisy latents of the model's own guided trajectories, one trajectory per seed.

    Every x_t is a noisy latent at its own timestep.

    Args:
        model: whose trajectories.
        prompt: that asks for the concept.
        base_prompt: what it is compared with; empty is no prompt.
        seeds: of the first noise, one for each trajectory.
        steps: of the sampler, each a noisy latent.
        guidance: scale of classifier-free guidance towards `prompt`; 0 follows `base_prompt` alone.
        batch_size: trajectories at once; the numbers do not depend on it but for rounding.
        progress: progress(done, total) counts noisy latents.

    Returns:
        len(seeds) * steps noisy latents, ordered by seed and then from the noisiest step to the last.

    Raises:
        UserError: seeds that are one number.

    Examples:
        >>> model = cad_exp.DiffusionModel.load("mini", device="cpu")
        >>> latents = cad_exp.sample_trajectory(model, "church", seeds=[0, 1], steps=3)
        >>> len(latents), latents.t.shape == latents.x.shape[:1]
        (6, True)
    """

    def points(chunk: list[int]) -> Iterator[tuple[Tensor, int, Tensor, Tensor]]:
        for step in model.trajectory(prompt, base_prompt, chunk, steps, guidance):
            yield step.x, step.t, step.base, step.cond

    if isinstance(seeds, int):
        raise UserError(
            f"seeds={seeds} is no list: seeds=[{seeds}] is one trajectory, seeds=range({seeds}) are {seeds}"
        )
    numbers = [int(seed) for seed in seeds]
    meta = {"kind": "trajectory", "seeds": numbers, "steps": steps, "guidance": guidance}
    x, t, base, cond = _collect(points, numbers, steps, batch_size, progress)
    return NoisyLatents(x, t, base, cond, None, prompt, base_prompt, meta)


@torch.no_grad()
def walk(
    model: DiffusionModel,
    base_prompt: str = "",
    seeds: Sequence[int] = (0,),
    steps: int = 50,
    batch_size: int = 16,
    progress: Progress | None = None,
) -> NoisyLatents:
    """Unguided trajectories of the base prompt, the same for every concept: without `cond` (see `look`)."""
    condition = model.encode([base_prompt])

    def points(chunk: list[int]) -> Iterator[tuple[Tensor, int, Tensor]]:
        scheduler = model.sampler(steps)
        x = model.noise_like(chunk) * scheduler.init_noise_sigma
        for t in scheduler.timesteps:
            base = model.predict(x, t.expand(len(x)), condition)
            yield x, int(t), base
            x = scheduler.step(base, t, x).prev_sample

    numbers = [int(seed) for seed in seeds]
    meta = {"kind": "trajectory", "seeds": numbers, "steps": steps, "guidance": 0.0}
    x, t, base = _collect(points, numbers, steps, batch_size, progress)
    return NoisyLatents(x, t, base, None, None, base_prompt, base_prompt, meta)


def _collect(
    points: Callable[[list[int]], Iterator[tuple[Any, ...]]],
    seeds: list[int],
    steps: int,
    batch_size: int,
    progress: Progress | None,
) -> list[Tensor]:
    """Return the tensors of all steps of trajectories that are walked in batches, ordered by seed and then by step."""
    if not seeds:
        raise UserError("a trajectory needs at least one seed")
    parts, done = [], 0
    for start in range(0, len(seeds), batch_size):
        chunk, walked = seeds[start : start + batch_size], []
        for x, t, *predictions in points(chunk):
            walked.append((x.cpu(), torch.full((len(chunk),), t), *(tensor.cpu() for tensor in predictions)))
            done += len(chunk)
            if progress:
                progress(done, len(seeds) * steps)
        parts.append([torch.stack(tensors, 1).flatten(0, 1) for tensors in zip(*walked, strict=True)])
    return [torch.cat(tensors) for tensors in zip(*parts, strict=True)]


@torch.no_grad()
def look(
    model: DiffusionModel, walked: NoisyLatents, prompt: str, batch_size: int = 16, progress: Progress | None = None
) -> NoisyLatents:
    """Return the points of a walk with the concept's prediction: equals `sample_trajectory` at guidance 0."""
    condition, parts = model.encode([prompt]), []
    for batch in walked.batches(batch_size):
        parts.append(model.predict(batch.x, batch.t, condition).cpu())
        if progress:
            progress(sum(map(len, parts)), len(walked))
    return replace(walked, cond=torch.cat(parts), prompt=prompt)


@torch.no_grad()
def sample_noised(
    model: DiffusionModel,
    prompt: str,
    base_prompt: str = "",
    images: np.ndarray | None = None,
    n: int = 50,
    seed: int = 0,
    steps: int | None = None,
    guidance: float | None = None,
    batch_size: int = 16,
    progress: Progress | None = None,
    origin: str | None = None,
) -> NoisyLatents:
    """Sample n noisy latents on noised images of the concept, with their denoising target.

    Timesteps are stratified over the whole schedule (one per n-th of it), so that few noisy latents cover all noise
    levels.

    Args:
        model: that predicts at the noisy latents, and makes the images where none are given.
        prompt: that asks for the concept.
        base_prompt: what it is compared with; empty is no prompt.
        images: (M, H, W, 3) uint8, used in turn; None lets the model generate n at seeds seed, seed + 1, ...
        n: noisy latents, at least 1.
        seed: of noise and timesteps, and of the generated images.
        steps: of the generated images; None takes the model's.
        guidance: of the generated images; None takes the model's.
        batch_size: noisy latents at once.
        progress: progress(done, total).
        origin: what the file says of the images: `generated` or `given` unless told.

    Raises:
        UserError: no image is given, or n is below 1.

    Examples:
        >>> import numpy as np
        >>> model = cad_exp.DiffusionModel.load("mini", device="cpu")
        >>> images = np.zeros((2, 64, 64, 3), dtype=np.uint8)
        >>> latents = cad_exp.sample_noised(model, "church", images=images, n=4)
        >>> len(latents), latents.target.shape == latents.x.shape
        (4, True)
    """
    if n < 1 or (images is not None and len(images) == 0):
        raise UserError("noised images need at least one image: raise n, or give a folder with images")
    origin = origin or ("generated" if images is None else "given")
    if images is None:
        images = model.generate([prompt] * n, range(seed, seed + n), steps, guidance, progress=progress)
    latents = model.encode_images(images).cpu()[torch.arange(n) % len(images)]
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(latents.shape, generator=generator)
    position = (torch.randperm(n, generator=generator) + torch.rand(n, generator=generator)) / n
    t = model.timesteps(position)
    x, target = model.add_noise(latents, noise, t), model.target(latents, noise, t)
    conditions, predictions = model.encode([prompt, base_prompt]), []
    for start in range(0, n, batch_size):
        part = slice(start, start + batch_size)
        size = len(x[part])
        both = model.predict(torch.cat([x[part]] * 2), torch.cat([t[part]] * 2), conditions.repeat_interleave(size))
        predictions.append(both.cpu().view(2, size, *x.shape[1:]))
    cond, base = torch.cat(predictions, 1)
    meta = {"kind": "noised", "seeds": [seed], "n": n, "images": origin, "n_images": len(images)}
    return NoisyLatents(x, t, base, cond, target, prompt, base_prompt, meta)
