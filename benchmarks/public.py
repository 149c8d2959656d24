"""The peer of the attribution: CAD's public procedure, written plainly from its description.

For each of the 50 timesteps a new guided DDIM trajectory is walked from pure noise (no latent is kept), and the loss
there is differentiated with respect to every parameter of the denoiser, one sample at a time. Two things are kinder
than the original: a latent is scored at its own timestep, so each trajectory is one step shorter (1,225 guided steps
and not 1,275), and the scores are then the same as ours, which is checked.
"""

import torch
from torch import Tensor

from cad_exp import DiffusionModel, find_sites


def public_attribution(
    model: DiffusionModel, prompt: str, base: str = "", seed: int = 0, steps: int = 50, guidance: float = 3.0
) -> dict[str, Tensor]:
    """w * dJ/dw (CAD-Erase) of every output projection: module -> (out, in) fp32 on the CPU."""
    unet = model.denoiser
    unet.requires_grad_(True)
    try:
        for last in range(steps):
            _accumulate(model, *_walk(model, prompt, base, seed, steps, guidance, last), prompt, base, steps)
        weights = {site.module: unet.get_submodule(site.module).weight for site in find_sites(unet)}
        return {name: (weight.detach().float() * weight.grad.float()).cpu() for name, weight in weights.items()}
    finally:
        unet.zero_grad(set_to_none=True)
        unet.requires_grad_(False)


@torch.no_grad()
def _walk(
    model: DiffusionModel, prompt: str, base: str, seed: int, steps: int, guidance: float, last: int
) -> tuple[Tensor, Tensor]:
    """Latent (1, C, h, w) and timestep (1,) after `last` guided steps from pure noise."""
    scheduler = model.sampler(steps)
    states = model.encode([prompt, base])
    x = model.noise_like([seed]) * scheduler.init_noise_sigma
    for t in scheduler.timesteps[:last]:
        cond, uncond = model.predict(torch.cat([x, x]), t.expand(2), states).chunk(2)
        x = scheduler.step(uncond + guidance * (cond - uncond), t, x).prev_sample
    return x, scheduler.timesteps[last].expand(1)


def _accumulate(model: DiffusionModel, x: Tensor, t: Tensor, prompt: str, base: str, steps: int) -> None:
    """Add this timestep's share of dJ/dw to the parameters' gradients."""
    concept, neutral = model.encode([prompt, base]).split(1)
    with torch.no_grad():
        target = model.predict(x, t, neutral)
    with torch.enable_grad():
        loss = (model.predict(x, t, concept) - target).square().mean() / steps
        loss.backward()


def public_cost(steps: int) -> int:
    """Forward-equivalents (one forward of one sample 1, its backward 2): guided steps cost two forwards each."""
    return 2 * (steps * (steps - 1) // 2) + steps * (1 + 1 + 2)


def our_cost(steps: int) -> int:
    """One guided trajectory, whose base predictions are kept, then one forward and backward per noisy latent."""
    return 2 * steps + steps * (1 + 2)
