"""What stands beside the edit of a method without scores: a change as large that knows nothing."""

from __future__ import annotations

from typing import Any

import torch

from cad_exp.interventions.edit import Edit
from cad_exp.models.pipeline import DiffusionModel

NOTE = "no random edit of equal budget exists: normal noise of the Frobenius norm of each parameter's change"


def perturbation(like: Edit, model: DiffusionModel, seed: int = 0) -> Edit:
    """Add seeded normal noise to the old parameters, as large as what `like` changes there (Frobenius norm).

    `like` has to be made for the model as it is. Rounding to the model's precision can change the norm a little. In
    place of the tensors that a method's hooks use stands noise of their norms.
    """
    generator = torch.Generator().manual_seed(seed)
    noisy: dict[str, torch.Tensor] = {}
    steering = {name: _as_long(value, generator) for name, value in like.steering.items()}
    for name, new in like.replaced.items():
        old = model.denoiser.get_parameter(name).detach().float().cpu()
        noise = torch.randn(old.shape, generator=generator)
        size = torch.linalg.vector_norm(new.float() - old) / torch.linalg.vector_norm(noise)
        noisy[name] = (old + size * noise).to(new.dtype)
    kept: dict[str, Any] = {
        key: like.meta[key] for key in ("model", "fingerprint", "matrices", "weights") if key in like.meta
    }
    kept["changed"] = sum(
        int((new != model.denoiser.get_parameter(name).detach().cpu()).sum()) for name, new in noisy.items()
    )
    meta: dict[str, Any] = {**kept, "edit": "random", "like": like.meta.get("edit"), "random_seed": seed, "note": NOTE}
    meta |= {"acts": like.meta["acts"], "settings": like.meta["settings"]} if steering else {}
    return Edit({}, meta=meta, replaced=noisy, steering=steering)


def _as_long(value: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Return normal noise of the shape and norm of a tensor."""
    noise = torch.randn(value.shape, generator=generator)
    scaled: torch.Tensor = noise * torch.linalg.vector_norm(value.float()) / torch.linalg.vector_norm(noise)
    return scaled.to(value.dtype)
