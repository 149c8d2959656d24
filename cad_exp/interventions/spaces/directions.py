"""Components that are directions of activations: a gate scales what an activation has of its direction.

What it has is told by the direction itself, or by the encoder of a sparse autoencoder, whose latents they then are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from cad_exp.interventions.edit import Edit
from cad_exp.interventions.edit_file import DIRECTION
from cad_exp.interventions.encoder import Encoder
from cad_exp.interventions.gating import OUTPUT, Ready, Replacements, Tap, scaled_outputs
from cad_exp.interventions.networks import Networks, is_text
from cad_exp.interventions.spaces.base import TABLE, ComponentSpace, Gating, RowGating, Scale
from cad_exp.models.pipeline import DiffusionModel
from cad_exp.utils import distributed
from cad_exp.utils.errors import UserError

FEW = 1024  # directions that estimators can afford which evaluate J for many sets of all of them


@dataclass(frozen=True)
class Place:
    """Directions (k, features) of one activation, the output that `tap` names.

    encoder: reads the values of the latents whose decoder rows the directions are; None: <h, d>.
    Raises UserError if they are no matrix, or the module belongs to a text encoder.
    """

    tap: Tap
    vectors: Tensor
    encoder: Encoder | None = None

    def __post_init__(self) -> None:
        if self.vectors.ndim != 2:
            raise UserError(f"directions of shape {tuple(self.vectors.shape)}: give a matrix, one direction a row")
        if is_text(self.tap.module):
            raise UserError(f"'{self.tap.module}' is of a text encoder: directions live in the denoiser")
        if self.tap.side != OUTPUT:
            raise UserError(f"'{self.tap.module}': directions are those of an output")

    def values(self, h: Tensor) -> Tensor:
        """Return z (..., k) of activations h (..., features)."""
        if self.encoder is None:
            return h @ self.vectors.to(h).T
        return self.encoder.to(h).values(h)

    @classmethod
    def of(cls, module: str, vectors: Tensor, axis: int = -1) -> Place:
        """Return directions at a module's output; axis: of its features, 1 in a convolution's map."""
        return cls(Tap(module, OUTPUT, axis), vectors.detach().float().cpu())


class Directions(ComponentSpace):
    """Directions d_i at some places: an output h becomes h + sum_i (g_i - 1) z_i(h) d_i, with z_i(h) = <h, d_i>.

    With an encoder z_i(h) is the value of its latent i. They need not be orthogonal: each reads the activation as it
    comes. name: of the granularity. Raises UserError for no place, and for a module that has two.
    """

    form, has_values = "directions", True

    def __init__(self, places: Sequence[Place], name: str = "direction"):
        modules = [place.tap.module for place in places]
        if not places or len(set(modules)) < len(modules):
            raise UserError("directions need at least one place, and each module once")
        self.places, self.name, self.kinds = list(places), name, (name,)
        self.sizes_of = [len(place.vectors) for place in places]
        self.n = sum(self.sizes_of)
        self.scale = Scale.FEW if self.n <= FEW else Scale.MANY

    @property
    def taps(self) -> list[Tap]:
        """The modules' outputs."""
        return [place.tap for place in self.places]

    def table(self) -> pd.DataFrame:
        """Return one row per direction; start and stop are its number at its place and the next."""
        rows = [
            (start + i, module, module, self.name, i, f"{module} · {self.name} {i}", i, i + 1)
            for module, start, size in self._spans()
            for i in range(size)
        ]
        return pd.DataFrame(rows, columns=TABLE)

    def gating(self, model: DiffusionModel, gates: Tensor) -> Gating:
        """Return gates (n,) of the directions, the same for all rows."""
        return _Shared(self, model, gates.to(model.device, torch.float32))

    def row_gating(self, model: DiffusionModel, gates: Tensor) -> RowGating:
        """Return gates (A, n) of the directions, one set for each ablation."""
        return _Rows(self, Networks.of(model), gates.to(model.device, torch.float32))

    def split(self, gates: Tensor) -> dict[str, Tensor]:
        """Return numbers (..., n) by module: the place of a gate is its direction."""
        modules = [place.tap.module for place in self.places]
        return dict(zip(modules, gates.split(self.sizes_of, -1), strict=True))

    def join(self, places: dict[str, Tensor]) -> Tensor:
        """Return the numbers (n,) fp32 of all modules."""
        return torch.cat([places[place.tap.module].float() for place in self.places])

    def randomised(self, seed: int) -> Directions:
        """Return random directions of the same lengths at the same places, read as these are."""
        generator, places = torch.Generator().manual_seed(seed), []
        for place in self.places:
            drawn = torch.randn(place.vectors.shape, generator=generator)
            vectors = drawn * (place.vectors.norm(dim=1) / drawn.norm(dim=1))[:, None]
            encoder = None if place.encoder is None else replace(place.encoder, weight=vectors)
            places.append(Place(place.tap, vectors, encoder))
        return Directions(places, self.name)

    def values(self, tap: Tap, activation: Tensor) -> Tensor:
        """Return z (..., k) of the directions of one place."""
        return next(place for place in self.places if place.tap == tap).values(activation)

    def components(self, edit: Edit) -> Tensor:
        """Return the sorted numbers of the directions that an edit scales."""
        found = [start + edit.indices.get(module, torch.zeros(0)).long() for module, start, _ in self._spans()]
        return torch.cat(found).sort().values

    def factors(self, edit: Edit) -> Tensor:
        """Return the factor (k,) of each direction that an edit scales, in the order of `components`."""
        found = torch.full((self.n,), float(edit.factor))
        for module, start, _ in self._spans():
            if module in edit.factors:
                found[start + edit.indices[module].long()] = edit.factors[module]
        return found[self.components(edit)]

    def intervention(self, selected: Tensor, factors: float | Tensor = 0.0, meta: dict[str, Any] | None = None) -> Edit:
        """Make the edit that scales the selected directions (k,) in the modules' outputs."""
        selected, order = selected.long().sort()
        own = None if isinstance(factors, float | int) else factors.float()[order]
        facts = {
            "granularity": self.name,
            "kinds": list(self.kinds),
            "factor": factors if own is None else None,
            "achieved": len(selected),
            "components": self.n,
            "changed": 0,  # weights
        }
        edit = Edit({}, DIRECTION, factors if isinstance(factors, float | int) else 0.0, facts | (meta or {}))
        for place, (module, start, size) in zip(self.places, self._spans(), strict=True):
            here = (selected >= start) & (selected < start + size)
            if not here.any():
                continue
            edit.indices[module] = selected[here] - start
            edit.vectors[module] = place.vectors[selected[here] - start]
            edit.taps[module] = (place.tap.axis, place.tap.index)
            if own is not None:
                edit.factors[module] = own[here]
            if place.encoder is not None:
                edit.encoders[module] = place.encoder
        return edit

    def segments(self, scope: str) -> list[tuple[int, int, int]]:
        """Return one group of all directions, or one for each place. UserError for a scope that it does not have."""
        if self._checked(scope) == "global":
            return [(0, 1, self.n)]
        return [(start, 1, size) for _, start, size in self._spans()]

    def saved(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return the directions and encoders, and where they are."""
        tensors: dict[str, Tensor] = {}
        told = []
        for number, place in enumerate(self.places):
            tensors[f"{number}.vectors"] = place.vectors
            tap = {"module": place.tap.module, "axis": place.tap.axis, "index": place.tap.index}
            if place.encoder is not None:
                tensors |= {f"{number}.{name}": tensor for name, tensor in place.encoder.tensors.items()}
            told.append(tap | {"encoder": None if place.encoder is None else place.encoder.facts})
        return tensors, {"name": self.name, "places": told}

    @classmethod
    def restored(cls, tensors: dict[str, Tensor], facts: dict[str, Any]) -> Directions:
        """Return the space that was `saved`."""
        places = []
        for number, told in enumerate(facts["places"]):
            head = f"{number}."
            own = {name.removeprefix(head): each for name, each in tensors.items() if name.startswith(head)}
            encoder = None if told["encoder"] is None else Encoder.restored(own, told["encoder"])
            tap = Tap(told["module"], OUTPUT, told["axis"], told["index"])
            places.append(Place(tap, own["vectors"], encoder))
        return Directions(places, facts["name"])

    def _spans(self) -> Iterator[tuple[str, int, int]]:
        """Yield (module, number of its first direction, how many) of every place."""
        start = 0
        for place, size in zip(self.places, self.sizes_of, strict=True):
            yield place.tap.module, start, size
            start += size

    @contextmanager
    def scaled(self, networks: Networks, gates: Tensor, replacements: Replacements) -> Iterator[None]:
        """Let the outputs have these gates meanwhile: (n,) for all rows, or (B, n)."""
        by_module = self.split(gates)
        with ExitStack() as hooks:
            for place in self.places:
                own = by_module[place.tap.module]
                hook = scaled_outputs(networks, place.tap, place.vectors, own, replacements, place.encoder)
                hooks.enter_context(hook)
            yield


class _Shared(Gating):
    """One set of gates for all rows; the gradient is that of the gates."""

    def __init__(self, space: Directions, model: DiffusionModel, gates: Tensor):
        self.space, self.networks, self.gates, self.taps = space, Networks.of(model), gates, space.taps

    def ready(self, replacements: Replacements) -> Ready:
        return partial(self.space.scaled, self.networks, self.gates, replacements)

    def differentiate(self) -> None:
        self.gates = self.gates.detach().clone().requires_grad_()

    def slopes(self) -> dict[str, Tensor]:
        slope = torch.zeros_like(self.gates) if self.gates.grad is None else self.gates.grad
        distributed.add_up([slope])
        return {module: own.cpu() for module, own in self.space.split(slope).items()}


class _Rows(RowGating):
    """Gates of each row."""

    def __init__(self, space: Directions, networks: Networks, gates: Tensor):
        self.space, self.networks, self.gates = space, networks, gates
        self.changed = {module: (own != 1).any(1).cpu() for module, own in space.split(gates).items()}
        self.taps: Sequence[Tap] = space.taps

    def __getitem__(self, rows: Tensor) -> _Rows:
        return _Rows(self.space, self.networks, self.gates[rows.to(self.gates.device)])

    def ready(self, replacements: Replacements) -> Ready:
        return partial(self.space.scaled, self.networks, self.gates, replacements)


RESTORED = {cls.form: cls for cls in (Directions,)}  # spaces that were not cut from sites
