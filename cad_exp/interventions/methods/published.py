"""Published weights of an erased model, laid over the denoiser as an edit."""

from __future__ import annotations

import torch

from cad_exp.interventions.edit import Edit
from cad_exp.models.pipeline import DiffusionModel
from cad_exp.models.state_dicts import overlay_tensors
from cad_exp.utils.errors import UserError


def published(model: DiffusionModel, path: str) -> Edit:
    """Replace the parameters in which a checkpoint differs from the model's own (models/state_dicts.py).

    UserError if the file is missing, damaged, of another model, or equal to the model.
    """
    own, changed = model.denoiser.state_dict(), {}
    for name, new in overlay_tensors(model.denoiser, path).items():
        if not torch.equal(new, own[name].detach().cpu()):
            changed[name] = new
    if not changed:
        raise UserError(f"'{path}' holds the weights that the model already has: give those of an edited model")
    return Edit({}, replaced=changed)
