"""Guide the sampling by prototypes: the gradient of a prototype's probability, through the features at a hookpoint.

1. At each step the network reads x_t under an empty prompt, once for its prediction, once up to the hookpoint.
2. The mean features there give p(k | x_t) = softmax_k(<z, c_k> / temperature) over the prototypes of the nearest t.
3. The prediction moves against the gradient of log p(k | x_t), as in classifier guidance (Dhariwal and Nichol,
   arXiv 2105.05233): noise, v and flow all point from the image to the noise. The move is `scale` times as long as the
   prediction, whatever the gradient's length: so every direction that is compared moves it equally far.

"Guided diffusion from self-supervised diffusion features" (2312.08825) guides by its prototypes in this way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from cad_exp.models.families.condition import Condition
from cad_exp.models.pipeline import DiffusionModel
from cad_exp.representations.activations import observe, pool
from cad_exp.representations.hookpoints import Hookpoint
from cad_exp.representations.prototypes import Prototypes

Push = Callable[[Tensor, Tensor, Condition], Tensor]  # of latents x, timesteps (B,) and the condition: like x


@torch.no_grad()
def sample(
    model: DiffusionModel,
    seeds: Sequence[int],
    steps: int,
    push: Push | None = None,
    scale: float = 0.0,
    tick: Callable[[int], object] = lambda _: None,
) -> Tensor:
    """Return clean latents (B, C, h, w), one from each seed, sampled under an empty prompt.

    Args:
        model: without classifier-free guidance.
        seeds: of the noise.
        steps: of the sampler.
        push: where each x_t is pushed; None: nowhere.
        scale: length of the push over that of the prediction.
        tick: called with the number of images after each step.
    """
    sampler, condition = model.sampler(steps), model.encode([""])
    x: Tensor = model.noise_like(seeds) * sampler.init_noise_sigma
    for t in sampler.timesteps:
        times = t.expand(len(x))
        predicted = model.predict(x, times, condition)
        if push is not None:
            predicted = predicted - scale * lengths(predicted) * unit(push(x, times, condition))
        x = sampler.step(predicted, t, x).prev_sample
        tick(len(x))
    return x


def toward(
    model: DiffusionModel, place: Hookpoint, prototypes: Mapping[int, Prototypes], wanted: Tensor, temperature: float
) -> Push:
    """Return the gradient of log p(k | x_t) for the prototypes (B,) that the rows want.

    prototypes: by the timestep at which they were measured; the nearest one serves.
    """
    by_time = {t: _tensors(each, model.device) for t, each in prototypes.items()}

    def push(x: Tensor, t: Tensor, condition: Condition) -> Tensor:
        mean, over, directions = by_time[min(by_time, key=lambda known: abs(known - float(t[0])))]
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            seen = observe(model, x, t, condition, [place])[place.name]
            found = (pool(place.name, seen, "mean") - mean) * over
            logits = torch.nn.functional.normalize(found, dim=1) @ directions.T / temperature
            chosen = logits.log_softmax(1)[torch.arange(len(x), device=x.device), wanted.to(x.device)]
            gradient: Tensor = torch.autograd.grad(chosen.sum(), x)[0]
        return gradient.float()

    return push


def along(directions: Tensor) -> Push:
    """Return the same direction (B, C, h, w) at every step."""
    return lambda x, *_: directions.to(x)


def lengths(x: Tensor) -> Tensor:
    """Return the length of each row, (B, 1, 1, 1)."""
    found: Tensor = x.flatten(1).norm(dim=1)
    return found.view(-1, *[1] * (x.ndim - 1))


def unit(x: Tensor) -> Tensor:
    """Return every row with length 1; a row of length 0 stays."""
    scaled: Tensor = x / lengths(x).clamp(min=1e-30)
    return scaled


def _tensors(each: Prototypes, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    parts = (each.standard.mean, 1 / each.standard.scale, each.directions)
    mean, over, directions = (torch.as_tensor(part, dtype=torch.float32, device=device) for part in parts)
    return mean, over, directions
