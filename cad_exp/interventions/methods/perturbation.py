"""What stands beside an edit that replaces weights: a change as large that knows nothing."""

from __future__ import annotations

import torch

from cad_exp.interventions.edit import Edit
from cad_exp.models.pipeline import DiffusionModel

NOTE = "no random edit of equal budget exists: normal noise of the Frobenius norm of each parameter's change"


def perturbation(like: Edit, model: DiffusionModel, seed: int = 0) -> Edit:
    """Old parameters plus seeded normal noise; per parameter its Frobenius norm is that of what `like` changes there.

    `like` has to be made for the model as it is. Rounding to the model's precision can change the norm a little.
    """
    generator, noisy = torch.Generator().manual_seed(seed), {}
    for name, new in like.replaced.items():
        old = model.denoiser.get_parameter(name).detach().float().cpu()
        noise = torch.randn(old.shape, generator=generator)
        size = torch.linalg.vector_norm(new.float() - old) / torch.linalg.vector_norm(noise)
        noisy[name] = (old + size * noise).to(new.dtype)
    kept = {key: like.meta[key] for key in ("model", "fingerprint", "matrices", "weights") if key in like.meta}
    kept["changed"] = sum(
        int((new != model.denoiser.get_parameter(name).detach().cpu()).sum()) for name, new in noisy.items()
    )
    meta = {**kept, "edit": "random", "like": like.meta.get("edit"), "random_seed": seed, "note": NOTE}
    return Edit({}, meta=meta, replaced=noisy)
