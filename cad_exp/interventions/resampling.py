"""Resampling in an edit of directions: what the base prompt would give takes the place of the chosen components.

A resample ablation knows the activation under the base prompt, from a second pass. An edit has no second pass, so it
predicts. At noisy latents of the concept's prompt, where both activations h are known,

  1. the values z_i of the chosen components are read from h(concept), at every position;
  2. h(base) - h(concept) is regressed on them, place by place, by ridge regression without a constant: it is about z V;
  3. the edit adds z V: h becomes h + sum_i (1 - f_i) z_i v_i. A factor f of 0 resamples, 1 would change nothing.

Where the chosen components do not act nothing is added, so other prompts stay as they are. What is added leads to where
the base prompt's activations lie, which multiplying by a negative factor does not.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from cad_exp.data.noisy_latents import NoisyLatents
from cad_exp.interventions.edit import Edit
from cad_exp.interventions.edit_file import DIRECTION
from cad_exp.interventions.encoder import Encoder
from cad_exp.interventions.gating import OUTPUT, Tap, watched
from cad_exp.interventions.networks import Networks
from cad_exp.models.families.condition import Condition
from cad_exp.models.pipeline import DiffusionModel
from cad_exp.utils.errors import UserError

NUMBER = 192  # noisy latents from which the regression learns; each has as many tokens as its place has positions
BATCH = 16
RIDGE = 0.01  # of the mean squared length of a component's values


@torch.no_grad()
def resampled(edit: Edit, model: DiffusionModel, latents: NoisyLatents, seed: int = 0) -> Edit:
    """Return an edit of the same directions that adds what the base prompt would give in their place.

    latents: of the concept's prompt; at most NUMBER of them are used, drawn by the seed. `meta["explained"]` says of
    each module which share of the squared difference the chosen components predict, 1 being all.

    Raises:
        UserError: the edit is not one of directions.
    """
    if edit.unit != DIRECTION:
        raise UserError("edit.ablation=resample is for directions of activations: use edit.ablation=scale")
    encoders = {name: edit.encoders.get(name) or _reader(edit, name) for name in edit.vectors}
    chosen = torch.randperm(len(latents), generator=torch.Generator().manual_seed(seed))[:NUMBER].sort().values
    taps = [Tap(name, OUTPUT, *edit.taps[name]) for name in edit.vectors]
    concept, base = model.encode([latents.prompt, latents.base_prompt]).split(1)
    fits = {name: _Fit(len(own), own.shape[1]) for name, own in edit.vectors.items()}
    for batch in latents[chosen].batches(BATCH):
        given, instead = (_seen(model, batch, condition, taps) for condition in (concept, base))
        for name, fit in fits.items():
            values = encoders[name].to(given[name]).values(given[name])
            fit.add(values[:, edit.indices[name].to(values.device)], instead[name] - given[name])
    solved = {name: fit.solve() for name, fit in fits.items()}
    explained = {name: share for name, (_, share) in solved.items()}
    vectors = {name: -found for name, (found, _) in solved.items()}  # an edit adds (f - 1) z times its vector
    meta = edit.meta | {"ablation": "resample", "explained": explained}
    return replace(edit, vectors=vectors, encoders=encoders, meta=meta)


class _Fit:
    """Ridge regression of differences (N, d) on values (N, k), from batches, in fp64."""

    def __init__(self, k: int, d: int):
        self.squares, self.products = torch.zeros(k, k).double(), torch.zeros(k, d).double()
        self.total = 0.0

    def add(self, values: Tensor, differences: Tensor) -> None:
        z, difference = values.double().cpu(), differences.double().cpu()
        self.squares += z.T @ z
        self.products += z.T @ difference
        self.total += float(difference.square().sum())

    def solve(self) -> tuple[Tensor, float]:
        """Return V (k, d) fp32, and the share of the squared differences that z V explains."""
        k = len(self.squares)
        ridge = RIDGE * float(self.squares.diagonal().mean()) + 1e-9
        found = torch.linalg.solve(self.squares + ridge * torch.eye(k).double(), self.products)
        left = self.total - 2 * float((found * self.products).sum()) + float((found * (self.squares @ found)).sum())
        return found.float(), 1 - left / max(self.total, 1e-12)


def _reader(edit: Edit, name: str) -> Encoder:
    """Return what reads <h, d> of the edit's directions, once other vectors stand in their places."""
    vectors, indices = edit.vectors[name], edit.indices[name]
    weight = torch.zeros(int(indices.max()) + 1, vectors.shape[1]).index_copy(0, indices, vectors)
    return Encoder(weight, torch.zeros(len(weight)), torch.zeros(vectors.shape[1]), signed=True)


def _seen(model: DiffusionModel, batch: NoisyLatents, condition: Condition, taps: list[Tap]) -> dict[str, Tensor]:
    """Return the activations (N, features) of each module at noisy latents, under one prompt."""
    seen: dict[str, list[Tensor]] = {}
    with watched(
        Networks.of(model), taps, lambda tap, x: seen.setdefault(tap.module, []).append(x.flatten(0, -2).float())
    ):
        model.predict(batch.x, batch.t, condition)
    return {name: torch.cat(calls) for name, calls in seen.items()}
