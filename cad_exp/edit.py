"""Edits: which components to change and by what factor, in a small file for diffusers pipelines; undone exactly."""

import math
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cad_exp.attribution import Attribution
from cad_exp.components import Granularity
from cad_exp.errors import UserError, choose
from cad_exp.files import temporary
from cad_exp.identity import digest
from cad_exp.storage import load_tensors, save_tensors

SIGNS = {"positive": 1, "negative": -1}


class AppliedEdit:
    """An edit in force: `undo()` puts the old weights back bit for bit. Also a context manager.

    Several edits of one model must be undone in the reverse order of their application.
    """

    def __init__(self, denoiser: nn.Module, edit: "Edit"):
        self._saved: list[tuple[Tensor, tuple, Tensor]] = []
        targets = [(_weight(denoiser, name), indices.long()) for name, indices in edit.indices.items()]
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

    @torch.no_grad()
    def undo(self) -> None:
        """Restore the weights; a second call does nothing."""
        while self._saved:
            weight, place, old = self._saved.pop()
            weight[place] = old

    def __enter__(self) -> "AppliedEdit":
        return self

    def __exit__(self, *error: Any) -> None:
        self.undo()


def _weight(denoiser: nn.Module, name: str) -> Tensor:
    try:
        return denoiser.get_submodule(name).weight.data
    except AttributeError as error:
        raise UserError(f"the model has no module '{name}': the edit was made for another model") from error


@dataclass
class Edit:
    """Multiply the weights at `indices` by `factor`.

    indices: module name -> (k,) int64, input columns (unit `column`) or flat entries (unit `entry`) of its weight.
    meta: granularity, scope, sign, requested, achieved and the attribution's provenance.
    """

    indices: dict[str, Tensor]
    unit: str = "column"
    factor: float = 0.0
    meta: dict = field(default_factory=dict)

    def apply(self, target: Any) -> AppliedEdit:
        """Edit a pipeline, a DiffusionModel or a denoiser in place. UserError, nothing changed, if it does not fit."""
        return AppliedEdit(_denoiser(target), self)

    def save(self, path: str | Path) -> Path:
        """Write a safetensors file: int32 indices, everything else as JSON metadata."""
        meta = {"unit": self.unit, "factor": self.factor, "meta": self.meta}
        return save_tensors(path, "edit", {name: idx.to(torch.int32) for name, idx in self.indices.items()}, meta)

    def digest(self) -> str:
        """24 hex digits that two edits share only if they change the same weights by the same factor."""
        places = {name: indices.sort().values.tolist() for name, indices in self.indices.items()}
        return digest([places, self.unit, self.factor] if places else [])

    @classmethod
    def load(cls, path: str | Path) -> "Edit":
        """Read an edit file. UserError if it is missing, damaged or something else."""
        tensors, meta = load_tensors(path, "edit")
        try:
            unit = choose(meta["unit"], ("column", "entry"), "edit unit")
            return cls({name: idx.long() for name, idx in tensors.items()}, unit, float(meta["factor"]), meta["meta"])
        except KeyError as error:
            raise UserError(f"the edit file '{path}' lacks the entry {error}: write it again") from error

    def export(self, target: Any, folder: str | Path) -> Path:
        """Save the edited pipeline as an ordinary diffusers folder; the pipeline in memory stays unedited.

        UserError if the folder exists and is not empty.
        """
        folder, pipe = Path(folder), getattr(target, "pipe", target)
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UserError(f"'{folder}' exists and is not empty: give a new folder for the edited checkpoint")
        folder.parent.mkdir(parents=True, exist_ok=True)
        draft = temporary(folder)
        try:
            with self.apply(pipe):
                pipe.save_pretrained(draft)
            os.replace(draft, folder)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        return folder


def _denoiser(target: Any) -> nn.Module:
    """The network to edit: of a DiffusionModel, of a pipeline, or the network itself."""
    if isinstance(target, nn.Module):
        return target
    pipe = getattr(target, "pipe", target)
    for name in ("unet", "transformer"):
        if isinstance(getattr(pipe, name, None), nn.Module):
            return getattr(pipe, name)
    raise UserError(f"a {type(target).__name__} has no denoiser to edit: give a diffusers pipeline or its UNet")


def select(
    attribution: Attribution,
    granularity: str,
    sign: str = "positive",
    ratio: float | None = None,
    count: int | None = None,
    scope: str = "global",
    factor: float = 0.0,
    kinds: Iterable[str] | None = None,
) -> Edit:
    """Choose the strongest components of one sign: ceil(ratio * size) in every group of the scope, or `count` in all.

    Only the wanted sign is chosen, so `achieved` may be below `requested` (both in meta); ties go to the lower index.
    ratio in (0, 1]; count >= 1 and only with scope=global; kinds restricts the kinds of site. UserError otherwise.
    """
    direction = SIGNS[choose(sign, SIGNS, "sign")]
    attribution = attribution.narrow(granularity, kinds)
    cut, scores = attribution.granularity(granularity), attribution.scores[granularity]
    quota = _quota(ratio, count, scope)
    chosen, requested = [torch.zeros(0, dtype=torch.long)], 0
    for start, groups, size in cut.segments(attribution.sites, scope):
        part = scores[start : start + groups * size].view(groups, size) * direction
        k = min(quota(size), size)
        values, order = part.sort(dim=1, descending=True, stable=True)
        flat = order[:, :k] + torch.arange(groups)[:, None] * size + start
        chosen.append(flat[values[:, :k] > 0])
        requested += k * groups
    selected = torch.cat(chosen)
    meta = {"edit": "select", "sign": sign, "ratio": ratio, "count": count, "requested": requested}
    return _edit(attribution, cut, selected, scope, factor, meta)


def random_edit(like: Edit, attribution: Attribution, granularity: str | None = None, seed: int = 0) -> Edit:
    """An edit of equal budget: in every scope group as many components as `like` has there, drawn by the seed."""
    name, scope = granularity or like.meta["granularity"], like.meta["scope"]
    attribution = attribution.narrow(name, like.meta["kinds"])
    cut, scores = attribution.granularity(name), attribution.scores[name]
    sites, generator = attribution.sites, torch.Generator().manual_seed(seed)
    taken = torch.zeros(len(scores), dtype=torch.bool)
    taken[cut.components(sites, like.indices)] = True
    chosen = [torch.zeros(0, dtype=torch.long)]
    for start, groups, size in cut.segments(sites, scope):
        budget = taken[start : start + groups * size].view(groups, size).sum(1, keepdim=True)
        order = torch.rand(groups, size, generator=generator).argsort(dim=1) + torch.arange(groups)[:, None] * size
        chosen.append((order + start)[torch.arange(size) < budget])
    meta = {"edit": "random", "sign": None, "requested": like.meta["achieved"], "random_seed": seed}
    return _edit(attribution, cut, torch.cat(chosen), scope, like.factor, meta)


def no_edit(attribution: Attribution | None = None) -> Edit:
    """The edit that changes nothing."""
    return Edit({}, meta={**(attribution.meta if attribution else {}), "edit": "none", "requested": 0, "achieved": 0})


EDITS = ("erase", "amplify", "none", "random")


def make_edit(
    name: str,
    attribution: Attribution,
    granularity: str,
    ratio: float | None = None,
    count: int | None = None,
    scope: str = "global",
    factor: float = 0.0,
    kinds: Iterable[str] | None = None,
    seed: int = 0,
) -> Edit:
    """An edit by name: `erase` (positive components), `amplify` (negative ones), `random` (erase's budget), `none`."""
    choose(name, EDITS, "edit")
    if name == "none":
        return no_edit(attribution)
    sign = "negative" if name == "amplify" else "positive"
    edit = select(attribution, granularity, sign, ratio, count, scope, factor, kinds)
    if name == "random":
        return random_edit(edit, attribution, granularity, seed)
    edit.meta["edit"] = name
    return edit


def _quota(ratio: float | None, count: int | None, scope: str) -> Any:
    """Components per group of a given size. The ratio counts as written: 0.1 of 30 is 3, whatever binary floats say."""
    if (ratio is None) == (count is None):
        raise UserError("say how much to edit: either ratio or count, not both")
    if ratio is not None:
        if not 0 < ratio <= 1:
            raise UserError(f"ratio={ratio} is out of range: use a number above 0 and up to 1")
        return lambda size: math.ceil(Fraction(str(ratio)) * size)
    if scope != "global":
        raise UserError(f"count={count} counts over the whole model: use scope=global, or a ratio with scope={scope}")
    if count < 1:
        raise UserError(f"count={count} is out of range: use 1 or more, or edit=none")
    return lambda size: count


def _edit(attribution: Attribution, cut: Granularity, selected: Tensor, scope: str, factor: float, meta: dict) -> Edit:
    facts = {
        "granularity": cut.name,
        "kinds": list(cut.kinds),
        "scope": scope,
        "factor": factor,
        "achieved": len(selected),
        "components": cut.count(attribution.sites),
    }
    return Edit(cut.locate(attribution.sites, selected), cut.unit, factor, {**attribution.meta, **facts, **meta})
