"""Edits: which components to change and by what factor, or which weights to replace; in a file, undone exactly."""

import hashlib
import os
import shutil
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cad_exp.interventions.methods import METHODS
from cad_exp.interventions.text_encoders import Networks
from cad_exp.utils.errors import UserError, choose
from cad_exp.utils.hashing import digest
from cad_exp.utils.io import permit, temporary
from cad_exp.utils.tensors import load_tensors, save_tensors

_REPLACED = "replaced:"  # what the file calls a whole new parameter, before its name
_STEERING = "steering:"  # and a tensor that a method's hooks use


class AppliedEdit:
    """An edit in force: `undo()` puts the old weights back bit for bit. Also a context manager.

    Several edits of one model must be undone in the reverse order of their application.
    """

    def __init__(self, denoiser: nn.Module | Networks, edit: "Edit"):
        self._saved: list[tuple[Tensor, tuple, Tensor]] = []
        self._hooks = ExitStack()
        targets = [(_matrix(denoiser, name), indices.long()) for name, indices in edit.indices.items()]
        whole = [(_parameter(denoiser, name, new), new) for name, new in edit.replaced.items()]
        for name, (weight, indices) in zip(edit.indices, targets, strict=True):
            limit = weight.shape[1] if edit.unit == "column" else weight.numel()
            if len(indices) and not 0 <= int(indices.min()) <= int(indices.max()) < limit:
                raise UserError(
                    f"the edit does not fit '{name}' of shape {tuple(weight.shape)}: it was made for another model"
                )
        with torch.no_grad():
            for weight, indices in targets:
                indices = indices.to(weight.device)
                width = weight.shape[1]
                place = (slice(None), indices) if edit.unit == "column" else (indices // width, indices % width)
                old = weight[place].clone()
                self._saved.append((weight, place, old))
                # Zero is written, not multiplied: 0 * w would keep a sign and spread NaN.
                weight[place] = torch.zeros_like(old) if edit.factor == 0 else old * edit.factor
            for parameter, new in whole:
                self._saved.append((parameter, (...,), parameter.clone()))
                parameter.copy_(new)
        if edit.steering:
            method = METHODS.get(edit.meta["acts"])
            self._hooks.enter_context(method.hooks(denoiser, edit.steering, **edit.meta["settings"]))

    @torch.no_grad()
    def undo(self) -> None:
        """Restore the weights and remove the hooks; a second call does nothing."""
        self._hooks.close()
        while self._saved:
            weight, place, old = self._saved.pop()
            weight[place] = old

    def __enter__(self) -> "AppliedEdit":
        return self

    def __exit__(self, *error: Any) -> None:
        self.undo()


def _matrix(denoiser: nn.Module | Networks, name: str) -> Tensor:
    try:
        weight = denoiser.get_submodule(name).weight.data
    except AttributeError as error:
        raise UserError(f"the model has no module '{name}': the edit was made for another model") from error
    if weight.dim() != 2:
        shape = tuple(weight.shape)
        raise UserError(
            f"the weight of '{name}' has shape {shape}, and an edit changes matrices: leave this module out"
        )
    return weight


def _parameter(denoiser: nn.Module, name: str, new: Tensor) -> Tensor:
    try:
        old = denoiser.get_parameter(name).data
    except AttributeError as error:
        raise UserError(f"the model has no parameter '{name}': the edit was made for another model") from error
    if old.shape != new.shape:
        shapes = f"{tuple(new.shape)} for {tuple(old.shape)}"
        raise UserError(f"the edit does not fit '{name}' ({shapes}): it was made for another model")
    return old


@dataclass
class Edit:
    """Multiply the weights at `indices` by `factor`, then put the tensors of `replaced` in place of whole parameters.

    indices: module name -> (k,) int64, input columns (unit `column`) or flat entries (unit `entry`) of its weight.
    meta: granularity, scope, sign, requested, achieved and the attribution's provenance, or the rival's settings;
    `changed` is the number of single weights that get another value.
    replaced: parameter name -> its new value, of the parameter's shape, on the CPU.
    steering: what the hooks of a method use that acts while the model runs; meta["acts"] names it.
    """

    indices: dict[str, Tensor]
    unit: str = "column"
    factor: float = 0.0
    meta: dict = field(default_factory=dict)
    replaced: dict[str, Tensor] = field(default_factory=dict)
    steering: dict[str, Tensor] = field(default_factory=dict)

    @property
    def empty(self) -> bool:
        """Whether the edit changes nothing."""
        return not (self.indices or self.replaced or self.steering)

    def apply(self, target: Any) -> AppliedEdit:
        """Edit a pipeline, a DiffusionModel or a denoiser in place. UserError, nothing changed, if it does not fit."""
        denoiser = _denoiser(target)
        return AppliedEdit(Networks(getattr(target, "pipe", target), denoiser), self)

    def save(self, path: str | Path) -> Path:
        """Write a safetensors file: int32 indices, replaced parameters as they are, the rest as JSON metadata."""
        meta = {"unit": self.unit, "factor": self.factor, "meta": self.meta}
        tensors = {name: idx.to(torch.int32) for name, idx in self.indices.items()}
        tensors |= {_REPLACED + name: value for name, value in self.replaced.items()}
        tensors |= {_STEERING + name: value for name, value in self.steering.items()}
        return save_tensors(path, "edit", tensors, meta)

    def digest(self) -> str:
        """24 hex digits that two edits share only if they change the same weights by the same factor or to the same."""
        places = {name: indices.sort().values.tolist() for name, indices in self.indices.items()}
        parts = [places, self.unit, self.factor] if places else []
        if self.steering:
            parts += [self.meta["acts"], self.meta["settings"], {n: _content(v) for n, v in self.steering.items()}]
        return digest(
            [*parts, {name: _content(value) for name, value in self.replaced.items()}] if self.replaced else parts
        )

    @classmethod
    def load(cls, path: str | Path) -> "Edit":
        """Read an edit file. UserError if it is missing, damaged or something else."""
        tensors, meta = load_tensors(path, "edit")
        try:
            unit = choose(meta["unit"], ("column", "entry"), "edit unit")
            whole, steering = (_named(tensors, prefix) for prefix in (_REPLACED, _STEERING))
            indices = {name: idx for name, idx in tensors.items() if not name.startswith((_REPLACED, _STEERING))}
            made = cls(indices, unit, meta["factor"], meta["meta"], whole, steering)
        except KeyError as error:
            raise UserError(f"the edit file '{path}' lacks the entry {error}: write it again") from error
        if fault := _fault(made):
            raise UserError(f"the edit file '{path}' {fault}: write it again with Edit.save")
        made.factor = float(made.factor)
        return made

    def export(self, target: Any, folder: str | Path) -> Path:
        """Save the edited pipeline as an ordinary diffusers folder; the pipeline in memory stays unedited.

        UserError if the folder exists and is not empty.
        """
        folder, pipe = Path(folder).resolve(), getattr(target, "pipe", target)
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UserError(f"'{folder}' exists and is not empty: give a new folder for the edited checkpoint")
        folder.parent.mkdir(parents=True, exist_ok=True)
        draft = temporary(folder)
        try:
            with self.apply(pipe):
                pipe.save_pretrained(draft)
            permit(draft)
            os.replace(draft, folder)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        return folder


def _named(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors of a file whose names begin with the prefix, without it."""
    return {name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)}


def _fault(edit: Edit) -> str | None:
    """What keeps the content of a file from being an edit; None where nothing does."""
    if type(edit.factor) not in (int, float) or not abs(edit.factor) < 1e30:
        return f"has the factor {str(edit.factor)[:40]}, which is no number of a sensible size"
    if not isinstance(edit.meta, dict):
        return "holds no metadata where its settings belong"
    if edit.steering and not {"acts", "settings"} <= set(edit.meta):
        return "does not name the method whose hooks use its tensors"
    for name, indices in edit.indices.items():
        if indices.dtype not in (torch.int32, torch.int64) or indices.dim() != 1:
            kind = str(indices.dtype).removeprefix("torch.")
            return (
                f"has indices of '{name}' of type {kind} and shape {tuple(indices.shape)}, not a list of whole numbers"
            )
        edit.indices[name] = indices = indices.long()
        if len(indices) and int(indices.min()) < 0:
            return f"has a negative index of '{name}'"
        if len(indices.unique()) < len(indices):
            return f"names an index of '{name}' twice"
    for name, new in edit.replaced.items():
        if not new.is_floating_point() or not new.isfinite().all():
            return f"replaces '{name}' by values that are no finite numbers"
    return None


def _denoiser(target: Any) -> nn.Module:
    """The network to edit: of a DiffusionModel, of a pipeline, or the network itself."""
    if isinstance(target, nn.Module):
        return target
    pipe = getattr(target, "pipe", target)
    for name in ("unet", "transformer"):
        if isinstance(getattr(pipe, name, None), nn.Module):
            return getattr(pipe, name)
    raise UserError(f"a {type(target).__name__} has no denoiser to edit: give a diffusers pipeline or its UNet")


def _content(tensor: Tensor) -> str:
    """SHA-256 of a tensor's type, shape and bytes."""
    raw = tensor.detach().cpu().contiguous()
    found = hashlib.sha256(f"{raw.dtype} {tuple(raw.shape)}".encode())
    found.update(raw.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()
