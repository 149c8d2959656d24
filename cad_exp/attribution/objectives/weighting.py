"""Which part of a prediction counts for more: which timesteps, and which spatial frequencies.

J is a mean over noisy latents. Those of early timesteps decide what the picture shows, those of late ones its details.
A mean of squared errors hardly sees a concept that is decided in few of them, or that is a change of brightness.

- uniform: every noisy latent counts alike, as in CAD (arXiv 2412.02542, eq. 5);
- snr: by the signal-to-noise ratio, at most 5; late timesteps count for more (Min-SNR, arXiv 2303.09556, eq. 6);
- x0: by how far the prediction moves the clean latents that it implies, squared; early timesteps count for more;
- image: by how far it moves the end of its own trajectory, squared, if all other predictions stay. The sampler itself
  says so: it is linear in the predictions (DDIM, arXiv 2010.02502, eq. 12; Euler steps for flow matching).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from cad_exp.data.noisy_latents import NoisyLatents
from cad_exp.models.pipeline import DiffusionModel
from cad_exp.utils.errors import UserError, choose

MOST = 5.0  # of the signal-to-noise ratio: gamma of Min-SNR
GRID = 1000  # timesteps over which weights of noised images are 1 on average


def reach(model: DiffusionModel, t: Tensor) -> Tensor:
    """Return how far a change of 1 of the prediction moves the clean latents, (M,) fp32 at timesteps t (M,)."""
    one = torch.ones(len(t), 1, 1, 1, device=t.device)
    found: Tensor = (model.predicted_x0(one, t, one) - model.predicted_x0(one, t, 0 * one)).flatten().abs().float()
    return found


def _uniform(model: DiffusionModel, t: Tensor) -> Tensor:
    return torch.ones(len(t), device=t.device)


def _snr(model: DiffusionModel, t: Tensor) -> Tensor:
    one = torch.ones(len(t), 1, 1, 1, device=t.device)
    signal, noise = model.add_noise(one, 0 * one, t), model.add_noise(0 * one, one, t)
    return (signal / noise.clamp_min(1e-6)).square().flatten().float().clamp_max(MOST)


def _x0(model: DiffusionModel, t: Tensor) -> Tensor:
    return reach(model, t).square()


def _image(model: DiffusionModel, number: int) -> Callable[[Tensor], Tensor]:
    """Return weights of the timesteps of a trajectory: one walk, in which each row is moved at one step."""
    sampler = model.sampler(number)
    x = torch.zeros(len(sampler.timesteps), 1, 1, 1, device=model.device)
    for row, t in enumerate(sampler.timesteps):
        change = torch.zeros_like(x)
        change[row] = 1
        x = sampler.step(change, t, x).prev_sample
    times, order = _timesteps(model, number).sort()
    weights = x.flatten().square().float().cpu()[order]
    return lambda t: weights.to(t.device)[torch.searchsorted(times.to(t.device), t.contiguous())]


ANYWHERE = {"uniform": _uniform, "snr": _snr, "x0": _x0}  # functions of the timestep alone
WEIGHTINGS = (*ANYWHERE, "image")


class Weighting:
    """The weights of noisy latents, 1 on average over the timesteps from which they come.

    Parts of the noisy latents keep the weights of the whole. Raises UserError for an unknown name, and for `image` at
    noisy latents that are no steps of trajectories.
    """

    def __init__(self, name: str, model: DiffusionModel, latents: NoisyLatents):
        self.name = choose(name, WEIGHTINGS, "objective.weighting")
        steps: int | None = latents.meta.get("steps")
        self._of: Callable[[Tensor], Tensor]
        if name != "image":
            self._of = partial(ANYWHERE[name], model)
        elif steps is None:
            raise UserError("objective.weighting=image needs steps of trajectories: use uniform, snr or x0")
        else:
            self._of = _image(model, steps)
        self._mean = 1.0
        if name != "uniform":
            grid = model.timesteps((torch.arange(GRID) + 0.5) / GRID) if steps is None else _timesteps(model, steps)
            self._mean = float(self._of(grid).mean())

    def __call__(self, t: Tensor) -> Tensor:
        """Return the weights (B,) fp32 of noisy latents at timesteps t (B,)."""
        return self._of(t) / self._mean


def _timesteps(model: DiffusionModel, number: int) -> Tensor:
    """Return the timesteps of a trajectory, as noisy latents have them."""
    return torch.tensor([int(t) for t in model.sampler(number).timesteps])


def low_frequencies(x: Tensor, share: float) -> Tensor:
    """Return what x (..., h, w) has of the lowest spatial frequencies, fp32: an orthogonal projection.

    share: of the frequencies of each axis, in 0..1. 1: x itself; 0: its mean over all positions.
    """
    if share == 1:
        return x
    height, width = x.shape[-2:]
    down, across = torch.fft.fftfreq(height, device=x.device), torch.fft.rfftfreq(width, device=x.device)
    kept = (down.abs()[:, None] <= share / 2) & (across <= share / 2)
    found: Tensor = torch.fft.irfft2(torch.fft.rfft2(x.float()) * kept, s=(height, width))
    return found
