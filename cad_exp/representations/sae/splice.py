"""What the denoiser loses where a reconstruction takes an activation's place: its own prediction error, by image."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from cad_exp.interventions.gating import changed_output
from cad_exp.interventions.networks import Networks
from cad_exp.models.pipeline import DiffusionModel
from cad_exp.representations.activations import Noising, noise_of
from cad_exp.representations.hookpoints import Hookpoint
from cad_exp.representations.sae.autoencoder import Dictionary
from cad_exp.utils.errors import UserError

Change = Callable[[Tensor], Tensor]


def reconstruction(dictionary: Dictionary) -> Change:
    """Return what replaces an activation (..., d) by its reconstruction."""

    def change(x: Tensor) -> Tensor:
        tokens = x.reshape(-1, x.shape[-1]).float()
        return dictionary.decode(dictionary.encode(tokens)).to(x.dtype).view(x.shape)

    return change


def ablation(mean: Tensor) -> Change:
    """Return what replaces an activation (..., d) by the tokens' mean (d,)."""
    return lambda x: mean.to(x.device, x.dtype).expand(x.shape)


@torch.no_grad()
def losses(
    model: DiffusionModel,
    latents: Tensor,
    images: Sequence[int],
    prompts: Sequence[str],
    noising: Noising,
    hookpoint: Hookpoint,
    changes: Mapping[str, Change],
    batch_size: int = 64,
) -> dict[str, np.ndarray]:
    """Return the squared prediction error (images,) fp64, averaged over timesteps and latents, under each change.

    Args:
        model: whose denoiser predicts the noise (or what it was trained to predict).
        latents: clean latents (images, C, h, w).
        images: their numbers, from which the noise is seeded.
        prompts: one for each image.
        noising: timesteps and seed; draws count as more timesteps.
        hookpoint: whose activation is changed.
        changes: name -> what is made of the activation.
        batch_size: rows of one forward pass.

    Raises:
        UserError: the hookpoint is the network's input, which is no module's output.
    """
    if hookpoint.tap is None:
        raise UserError(f"'{hookpoint.name}' is the network's input: nothing can be spliced in there")
    condition, networks = model.encode(list(prompts)), Networks.of(model)
    rows = [(n, t, draw) for n in range(len(images)) for t in noising.timesteps for draw in range(noising.draws)]
    found = {name: np.zeros(len(images)) for name in changes}
    for start in range(0, len(rows), batch_size):
        batch = rows[start : start + batch_size]
        number, t = torch.tensor([n for n, _, _ in batch]), torch.tensor([t for _, t, _ in batch])
        clean = latents[number].cpu()
        noise = torch.stack([noise_of(latents.shape[1:], noising.seed, int(images[n]), s, d) for n, s, d in batch])
        x, target = model.add_noise(clean, noise, t), model.target(clean, noise, t)
        for name, change in changes.items():
            with changed_output(networks, hookpoint.tap, change):
                error = (model.predict(x, t, condition[number]).cpu() - target).double().square().flatten(1).mean(1)
            np.add.at(found[name], number.numpy(), error.numpy())
    return {name: total / (len(rows) // len(images)) for name, total in found.items()}
