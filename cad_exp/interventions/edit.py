"""Edits: which components to change and by what factor, or which weights to replace; in a file, undone exactly."""

import hashlib
import os
import shutil
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cad_exp.interventions.edit_file import (
    COLUMN,
    DIRECTION,
    ENCODER,
    FACTORS,
    MARKS,
    PARTS,
    REPLACED,
    STEERING,
    UNITS,
    VECTORS,
    fault,
    misfit,
    parts_of,
)
from cad_exp.interventions.encoder import Encoder
from cad_exp.interventions.gating import OUTPUT, Tap, scaled_outputs
from cad_exp.interventions.methods import METHODS
from cad_exp.interventions.networks import Networks
from cad_exp.utils.errors import UserError, choose
from cad_exp.utils.hashing import digest
from cad_exp.utils.io import permit, temporary
from cad_exp.utils.tensor_header import kind_of
from cad_exp.utils.tensors import load_tensors, save_tensors


@dataclass
class Edit:
    """Multiply components by `factor`, then put the tensors of `replaced` in place of whole parameters.

    indices: module name -> (k,) int64: input columns (unit `column`) or flat entries (`entry`) of its weight. Or
    numbers of directions (`direction`), whose `vectors` (k, features) are scaled in the module's output. `taps` tells
    the axis of its features, and which output of several; `encoders` read the latents, where directions are theirs.
    factors: module name -> (k,), for those whose components have factors of their own.
    meta: granularity, scope, sign, requested, achieved and the attribution's provenance, or the method's settings;
    `changed` is the number of single weights that get another value.
    replaced: parameter name -> its new value, of the parameter's shape, on the CPU.
    steering: tensors that the hooks of the method `meta["acts"]` use while the model runs.
    """

    indices: dict[str, Tensor]
    unit: str = COLUMN
    factor: float = 0.0
    meta: dict[str, Any] = field(default_factory=dict)
    replaced: dict[str, Tensor] = field(default_factory=dict)
    factors: dict[str, Tensor] = field(default_factory=dict)
    vectors: dict[str, Tensor] = field(default_factory=dict)
    taps: dict[str, tuple[int, int]] = field(default_factory=dict)
    encoders: dict[str, Encoder] = field(default_factory=dict)
    steering: dict[str, Tensor] = field(default_factory=dict)

    @property
    def empty(self) -> bool:
        """Whether the edit changes nothing."""
        return not (self.indices or self.replaced or self.steering)

    def apply(self, target: Any) -> "AppliedEdit":
        """Edit a pipeline, a DiffusionModel or a denoiser in place. UserError, nothing changed, if it does not fit."""
        return AppliedEdit(Networks.of(target), self)

    def save(self, path: str | Path) -> Path:
        """Write a safetensors file: int32 indices, replaced parameters as they are, the rest as JSON metadata.

        An edit file that lies there is replaced. UserError for anything else: it is not ours.
        """
        if os.path.lexists(path) and kind_of(Path(path)) != "edit":
            raise UserError(f"'{path}' is no edit file of cad_exp and would be overwritten: give another path")
        meta: dict[str, Any] = {"unit": self.unit, "factor": self.factor, "meta": self.meta}
        if self.vectors:
            meta["taps"] = {name: list(tap) for name, tap in self.taps.items()}
        if self.encoders:
            meta["encoders"] = {name: each.facts for name, each in self.encoders.items()}
        tensors = {name: idx.to(torch.int32) for name, idx in self.indices.items()}
        marked = {REPLACED: self.replaced, FACTORS: self.factors, VECTORS: self.vectors, STEERING: self.steering}
        for mark, named in marked.items():
            tensors |= {mark + name: value for name, value in named.items()}
        for name, encoder in self.encoders.items():
            tensors |= {f"{ENCODER}{part}:{name}": value for part, value in encoder.tensors.items()}
        return save_tensors(path, "edit", tensors, meta)

    def digest(self) -> str:
        """Return 24 hex digits. Two edits share them only if they change the same weights in the same way."""
        order = {name: indices.sort().indices for name, indices in self.indices.items()}
        places = {name: self.indices[name][own].tolist() for name, own in order.items()}
        parts: list[Any] = [places, self.unit, self.factor] if places else []
        if self.steering:
            parts += [self.meta["acts"], self.meta["settings"], {n: _content(v) for n, v in self.steering.items()}]
        if self.replaced:
            parts.append({name: _content(value) for name, value in self.replaced.items()})
        for named in (self.factors, self.vectors):
            if named:
                parts.append({name: _content(value[order[name]]) for name, value in named.items()})
        parts += [{name: list(tap) for name, tap in self.taps.items()}] if self.vectors else []
        for name, encoder in sorted(self.encoders.items()):
            parts.append([name, encoder.facts, {part: _content(value) for part, value in encoder.tensors.items()}])
        return digest(parts)

    @classmethod
    def load(cls, path: str | Path) -> "Edit":
        """Read an edit file. UserError if it is missing, damaged or something else."""
        tensors, meta = load_tensors(path, "edit")
        named: dict[str, dict[str, Tensor]] = {mark: {} for mark in (*MARKS, *PARTS, "")}
        for name, tensor in tensors.items():
            mark = next(mark for mark in named if name.startswith(mark))
            named[mark][name[len(mark) :]] = tensor
        try:
            unit = choose(meta["unit"], UNITS, "edit unit")
            factor, facts, indices = meta["factor"], meta["meta"], named[""]
        except KeyError as error:
            raise UserError(f"the edit file '{path}' lacks the entry {error}: write it again") from error
        taps, told = meta.get("taps", {}), meta.get("encoders", {})
        faults = (fault(indices, factor, facts, named[REPLACED]), misfit(indices, unit, named, facts, taps, told))
        if wrong := next(filter(None, faults), None):
            raise UserError(f"the edit file '{path}' {wrong}: write it again with Edit.save")
        indices = {name: places.long() for name, places in indices.items()}
        places = {name: (int(tap[0]), int(tap[1])) for name, tap in taps.items()}
        encoders = {name: Encoder.restored(parts_of(named, name), each) for name, each in told.items()}
        more = (named[REPLACED], named[FACTORS], named[VECTORS], places, encoders, named[STEERING])
        return cls(indices, unit, float(factor), facts, *more)

    def export(self, target: Any, folder: str | Path) -> Path:
        """Save the edited pipeline as an ordinary diffusers folder; the pipeline in memory stays unedited.

        UserError if the folder exists and is not empty, or if the edit acts on activations, which no folder holds.
        """
        if self.vectors or self.steering:
            raise UserError("this edit changes activations and no weights: apply it to the pipeline instead")
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


class AppliedEdit:
    """An edit in force: `undo()` puts the old weights back bit for bit. Also a context manager.

    Several edits of one model must be undone in the reverse order of their application.
    """

    def __init__(self, networks: Networks, edit: Edit):
        self._undo, self._edit = ExitStack(), edit
        change = self._scale_outputs if edit.unit == DIRECTION else self._scale_weights
        whole = [(_parameter(networks, name, new), new) for name, new in edit.replaced.items()]
        change(networks)
        for parameter, new in whole:
            self._write(parameter, (...,), parameter.clone(), new)
        if edit.steering:
            method = METHODS.get(edit.meta["acts"])
            self._undo.enter_context(method.hooks(networks, edit.steering, **edit.meta["settings"]))

    def _scale_weights(self, networks: Networks) -> None:
        edit, targets = self._edit, []
        for name, indices in edit.indices.items():
            weight = _matrix(networks, name)
            limit = weight.shape[1] if edit.unit == COLUMN else weight.numel()
            if len(indices) and not 0 <= int(indices.min()) <= int(indices.max()) < limit:
                raise UserError(
                    f"the edit does not fit '{name}' of shape {tuple(weight.shape)}: it was made for another model"
                )
            targets.append((name, weight, indices.long()))
        for name, weight, indices in targets:
            indices = indices.to(weight.device)
            width = weight.shape[1]
            place = (slice(None), indices) if edit.unit == COLUMN else (indices // width, indices % width)
            old = weight[place].clone()
            self._write(weight, place, old, _scaled(old, edit.factors.get(name, edit.factor)))

    def _scale_outputs(self, networks: Networks) -> None:
        for name in self._edit.vectors:
            _module(networks, name)
        for name, vectors in self._edit.vectors.items():
            factors = self._edit.factors.get(name, torch.full((len(vectors),), self._edit.factor))
            tap = Tap(name, OUTPUT, *self._edit.taps.get(name, (-1, 0)))
            encoder, chosen = self._edit.encoders.get(name), self._edit.indices[name]
            hook = scaled_outputs(networks, tap, vectors, factors, None, encoder, chosen)
            self._undo.enter_context(hook)

    @torch.no_grad()
    def _write(self, weight: Tensor, place: Any, old: Tensor, new: Tensor) -> None:
        self._undo.callback(_put, weight, place, old)
        _put(weight, place, new)

    def undo(self) -> None:
        """Restore the model; a second call does nothing."""
        self._undo.close()

    def __enter__(self) -> "AppliedEdit":
        return self

    def __exit__(self, *error: Any) -> None:
        self.undo()


@torch.no_grad()
def _put(weight: Tensor, place: Any, value: Tensor) -> None:
    weight[place] = value.to(weight.device)


@torch.no_grad()
def _scaled(old: Tensor, factor: float | Tensor) -> Tensor:
    """Return old weights times factors, rounded once: a factor near 1 has too few digits in half precision.

    Zero is written, not multiplied: 0 * w would keep a sign and spread NaN.
    """
    factor = torch.as_tensor(factor, dtype=torch.promote_types(old.dtype, torch.float32), device=old.device)
    return torch.where(factor == 0, torch.zeros_like(old), (old * factor).to(old.dtype))


def _module(networks: Networks, name: str) -> Any:
    try:
        return networks.get_submodule(name)
    except AttributeError as error:
        raise UserError(f"the model has no module '{name}': the edit was made for another model") from error


def _matrix(networks: Networks, name: str) -> Tensor:
    module = _module(networks, name)
    if not isinstance(getattr(module, "weight", None), Tensor):
        raise UserError(f"the model has no module '{name}': the edit was made for another model")
    weight: Tensor = module.weight.data
    if weight.dim() != 2:
        shape = tuple(weight.shape)
        raise UserError(
            f"the weight of '{name}' has shape {shape}, and an edit changes matrices: leave this module out"
        )
    return weight


def _parameter(networks: Networks, name: str, new: Tensor) -> Tensor:
    try:
        old = networks.get_parameter(name).data
    except AttributeError as error:
        raise UserError(f"the model has no parameter '{name}': the edit was made for another model") from error
    if old.shape != new.shape:
        shapes = f"{tuple(new.shape)} for {tuple(old.shape)}"
        raise UserError(f"the edit does not fit '{name}' ({shapes}): it was made for another model")
    return old


def _content(tensor: Tensor) -> str:
    """Return the SHA-256 of a tensor's type, shape and bytes."""
    raw = tensor.detach().cpu().contiguous()
    found = hashlib.sha256(f"{raw.dtype} {tuple(raw.shape)}".encode())
    found.update(raw.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()
