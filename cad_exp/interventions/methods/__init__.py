"""Rival methods that give whole weights new values, and so need no scores: closed forms, training, published files.

Those that switch components off by a score of their own are estimators: Wanda, SalUn, magnitude
(cad_exp/attribution/estimators).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from cad_exp.interventions.edit import Edit
from cad_exp.interventions.methods.esd import esd
from cad_exp.interventions.methods.perturbation import perturbation
from cad_exp.interventions.methods.published import published
from cad_exp.interventions.methods.rece import rece
from cad_exp.interventions.methods.uce import uce
from cad_exp.models.pipeline import DiffusionModel, Progress
from cad_exp.utils.errors import UserError, choose

RIVALS: dict[str, Callable[..., Edit]] = {"uce": uce, "rece": rece, "esd": esd, "checkpoint": published}
# What the group `edit` holds for every edit and these do not take.
_OTHERS = ("name", "sign", "factor", "ratio", "count", "scope", "rounding")
__all__ = ["RIVALS", "make_rival", "perturbation"]


def make_rival(
    settings: dict[str, Any], model: DiffusionModel, draft: Path | None = None, progress: Progress | None = None
) -> Edit:
    """The edit that a rival makes of a model; `settings` is the group `edit` of a config, `name` one of RIVALS.

    draft: a file in which one that trains keeps what it has finished, and from which it goes on; None: nowhere.
    progress(done, total) counts its steps. UserError for settings that it does not take, or a model that it is not for.
    """
    name = choose(settings["name"], RIVALS, "rival")
    own = {key: value for key, value in settings.items() if key not in _OTHERS}
    more = {"draft": draft, "progress": progress} if RIVALS[name] is esd else {}
    try:
        edit = RIVALS[name](model, **own, **more)
    except TypeError as error:
        if "unexpected keyword" in str(error) or "required" in str(error):
            raise UserError(f"edit {name} does not take these settings: {error}") from error
        raise
    old = {parameter: model.denoiser.get_parameter(parameter).detach().cpu() for parameter in edit.replaced}
    edit.meta |= {
        "edit": name,
        "settings": own,
        "model": model.name,
        "fingerprint": model.fingerprint(),
        "matrices": len(edit.replaced),
        "weights": sum(value.numel() for value in edit.replaced.values()),
        "changed": sum(int((value != old[parameter]).sum()) for parameter, value in edit.replaced.items()),
    }
    return edit
