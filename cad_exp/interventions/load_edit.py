"""Edits brought to a plain diffusers pipeline in one line: `cad_exp.load_edit(pipe, "user/name")`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from cad_exp.interventions.edit import AppliedEdit, Edit
from cad_exp.interventions.networks import Networks
from cad_exp.models.fingerprint import fingerprint
from cad_exp.models.sources import HUB_ID
from cad_exp.utils.errors import UserError, reason_of
from cad_exp.utils.paths import resolve

FILE = "edit.safetensors"  # in the folder of a run, and in a repository on the hub


def load_edit(pipe: Any, source: str | Path, revision: str | None = None, check: bool = True) -> AppliedEdit:
    """Apply an edit to a diffusers pipeline; `undo()` of what is returned puts every weight back, bit for bit.

    Args:
        pipe: a pipeline, a DiffusionModel or a denoiser, edited in place.
        source: an edit file, a folder that holds edit.safetensors (of a run), or an id on the hub.
        revision: the commit or branch on the hub; None takes the newest one.
        check: whether the denoiser must have the very weights for which the edit was made.

    Returns:
        The edit in force, which is also a context manager.

    Raises:
        UserError: there is no such edit, or it was made for another model. Nothing is changed then.

    Examples:
        >>> model = cad_exp.DiffusionModel.load("mini", device="cpu")
        >>> layer = cad_exp.find_sites(model.denoiser)[0].module
        >>> import torch
        >>> file = cad_exp.Edit({layer: torch.tensor([0, 3])}).save("edit.safetensors")
        >>> applied = cad_exp.load_edit(model, file)
        >>> model.denoiser.get_parameter(f"{layer}.weight")[:, 3].abs().max().item()
        0.0
        >>> applied.undo()
    """
    edit = Edit.load(edit_file(source, revision))
    if check:
        _check(edit, Networks.of(pipe).denoiser, str(source))
    return edit.apply(pipe)


def edit_file(source: str | Path, revision: str | None = None) -> Path:
    """Return the file of an edit, downloaded if `source` is an id on the hub. UserError if there is none."""
    place = resolve(source)
    if os.path.isdir(place):
        if not (place / FILE).is_file():
            raise UserError(f"the folder '{source}' holds no {FILE}: give the folder of a run with an edit")
        return place / FILE
    if os.path.isfile(place):
        return place
    if str(source).endswith(".safetensors") or not HUB_ID.fullmatch(str(source)):
        raise UserError(
            f"there is no edit '{source}': give an edit file, the folder of a run, or owner/name on the hub"
        )
    from huggingface_hub import errors, hf_hub_download

    at = f" at revision {revision}" if revision else ""
    try:
        return Path(hf_hub_download(str(source), FILE, revision=revision))
    except errors.GatedRepoError as error:
        raise UserError(f"'{source}' is gated: accept its licence on huggingface.co, then `hf auth login`") from error
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        raise UserError(f"the hub has no '{source}'{at}, or it needs a login: check it, or `hf auth login`") from error
    except Exception as error:  # network errors share no base class, and change with the hub's HTTP library
        if isinstance(error, errors.EntryNotFoundError) and not isinstance(error, errors.LocalEntryNotFoundError):
            raise UserError(f"'{source}' on the hub{at} holds no {FILE}: give a repository with an edit") from error
        raise UserError(f"the hub cannot be reached for '{source}' ({reason_of(error, 100)})") from error


def _check(edit: Edit, denoiser: Any, source: str) -> None:
    """Raise UserError unless the denoiser has the weights whose fingerprint the edit names, in any of its types."""
    wanted = edit.meta.get("fingerprint")
    if wanted is None:
        return
    types = [None, torch.float32, torch.bfloat16, torch.float16]
    if any(fingerprint(denoiser, dtype) == wanted for dtype in types):
        return
    made = f"'{edit.meta['model']}'" if edit.meta.get("model") else "another model"
    raise UserError(
        f"the edit '{source}' was made for {made} with the weights {wanted}, and this pipeline's are "
        f"{fingerprint(denoiser)}: load that model in the precision of the run, or give check=False to apply it anyway"
    )
