"""Components that are groups of columns of output projections: neurons, heads, layers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import pandas as pd
import torch
from torch import Tensor

from cad_exp.interventions.edit import Edit
from cad_exp.interventions.gating import Tap
from cad_exp.interventions.networks import Networks, weight_of
from cad_exp.interventions.spaces.base import TABLE, ComponentSpace, Gating, RowGating, Scale
from cad_exp.interventions.spaces.gated_columns import GatedInputs, GatedWeights
from cad_exp.interventions.spaces.sites import Site
from cad_exp.models.pipeline import DiffusionModel
from cad_exp.utils.errors import UserError


class Cut(Protocol):
    """What a space needs of its granularity."""

    name: str
    kinds: tuple[str, ...]
    scopes: tuple[str, ...]
    scale: Scale
    own: Mapping[str, Any]

    def narrowed(self, kinds: Iterable[str]) -> Cut:
        """Return the same granularity on sites of these kinds."""
        ...

    def covers(self, kind: str) -> bool:
        """Return whether sites of this kind take part."""
        ...

    def sites(self, all_sites: Sequence[Site]) -> list[Site]:
        """Return the sites that it covers, in their order."""
        ...

    def parts(self, site: Site) -> int:
        """Return the number of components in one site."""
        ...

    def title(self, site: Site, part: int) -> str:
        """Return a component's name for a person."""
        ...

    def singles(self) -> Cut:
        """Return the cut of the same sites into single weights."""
        ...

    def on(self, sites: Sequence[Site]) -> Columns:
        """Return the space of its components in these sites."""
        ...


class Columns(ComponentSpace):
    """The components of one granularity in some sites, numbered site after site.

    Where one gate stands for a group of columns, the place of a gate is the column: `split` gives (..., in) per module.
    """

    unit, of_weights = "column", True

    def __init__(self, granularity: Cut, sites: Sequence[Site]):
        self.granularity, self.all_sites = granularity, list(sites)
        self.name, self.kinds = granularity.name, granularity.kinds
        self.scopes, self.scale, self.settings = granularity.scopes, granularity.scale, granularity.own
        self.sites = granularity.sites(self.all_sites)
        self.parts = [granularity.parts(site) for site in self.sites]
        self.n = sum(self.parts)

    @property
    def taps(self) -> list[Tap]:
        """The inputs of the sites' Linears."""
        return [Tap(name) for name in dict.fromkeys(site.module for site in self.sites)]

    def table(self) -> pd.DataFrame:
        """Return one row per component; start and stop are its columns in the Linear's weight."""
        rows: list[tuple[Any, ...]] = []
        for site, parts in zip(self.sites, self.parts, strict=True):
            width = site.shape[1] // parts
            for part in range(parts):
                start = site.first + part * width
                name = self.granularity.title(site, part)
                rows.append((len(rows), site.module, site.block, site.kind, part, name, start, start + width))
        return pd.DataFrame(rows, columns=TABLE)

    def gating(self, model: DiffusionModel, gates: Tensor) -> Gating:
        """Return gates (n,) as effective weights."""
        return GatedWeights(model, self.split(gates))

    def row_gating(self, model: DiffusionModel, gates: Tensor) -> RowGating:
        """Return gates (A, n) as masks of the projections' inputs."""
        places = {name: gate.to(model.device, torch.float32) for name, gate in self.split(gates).items()}
        return GatedInputs(Networks.of(model), places)

    def split(self, gates: Tensor) -> dict[str, Tensor]:
        """Return numbers (..., n) as (..., in) per module; columns that belong to none of these sites get 1."""
        found: dict[str, Tensor] = {}
        pieces = torch.split(gates, self.parts, dim=-1)
        for site, parts, piece in zip(self.sites, self.parts, pieces, strict=True):
            own = self._place(site, parts, piece)
            if site.width > site.shape[1]:  # the site has a part of the module's columns
                whole = found.get(site.module)
                whole = own.new_ones(*own.shape[:-1], site.width) if whole is None else whole
                whole[..., site.columns] = own
                own = whole
            found[site.module] = own
        return found

    def _place(self, site: Site, parts: int, piece: Tensor) -> Tensor:
        return piece.repeat_interleave(site.shape[1] // parts, -1)

    def join(self, places: dict[str, Tensor]) -> Tensor:
        """Return numbers (n,) from those per module: (in,), or (out, in) for single weights."""
        pieces = [torch.zeros(0)]
        for site, parts in zip(self.sites, self.parts, strict=True):
            pieces.append(self._sum(places[site.module][..., site.columns].float(), parts))
        return torch.cat(pieces)

    def _sum(self, own: Tensor, parts: int) -> Tensor:
        return (own.sum(0) if own.ndim == 2 else own).reshape(parts, -1).sum(1)

    def magnitudes(self, model: DiffusionModel, factors: dict[str, Tensor] | None = None) -> Tensor:
        """Return the sum (n,) of |w| over a component's weights, each times the factor of its column (in,)."""
        networks, found = Networks.of(model), {}
        for name in (tap.module for tap in self.taps):
            found[name] = weight_of(networks, name).float().cpu().abs()
            if factors is not None:
                found[name] = found[name] * factors[name]
        return self.join(found)

    def locate(self, selected: Tensor) -> dict[str, Tensor]:
        """Return the sorted indices of components (k,) per module: input columns, or flat entries (see `unit`)."""
        return {name: places for name, (places, _) in self._located(selected.long().sort().values).items()}

    def _located(self, selected: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """Return per module the indices of sorted components (k,), and which of these each belongs to."""
        located: dict[str, tuple[Tensor, Tensor]] = {}
        offset = 0
        for site, parts in zip(self.sites, self.parts, strict=True):
            first, last = torch.searchsorted(selected, torch.tensor([offset, offset + parts])).tolist()
            if last > first:
                places = self._expand(site, parts, selected[first:last] - offset)
                owners = torch.arange(first, last).repeat_interleave(len(places) // (last - first))
                if site.module in located:  # two sites share the module
                    before = located[site.module]
                    places, order = torch.cat([before[0], places]).sort()
                    owners = torch.cat([before[1], owners])[order]
                located[site.module] = places, owners
            offset += parts
        return located

    def _expand(self, site: Site, parts: int, numbers: Tensor) -> Tensor:
        """Return the sorted indices of a site's components (k,), in `unit`s."""
        width = site.shape[1] // parts
        return (numbers[:, None] * width + torch.arange(width)).flatten() + site.first

    def _contract(self, site: Site, parts: int, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Return which indices (k,) bool belong to a site and not to another of its module, and their components."""
        own = indices - site.first
        here = (own >= 0) & (own < site.shape[1])
        return here, own[here] // (site.shape[1] // parts)

    def components(self, edit: Edit) -> Tensor:
        """Return the sorted numbers of the components with an index that an edit changes."""
        found, offset = [torch.zeros(0, dtype=torch.long)], 0
        for site, parts in zip(self.sites, self.parts, strict=True):
            if site.module in edit.indices:
                found.append(torch.unique(self._contract(site, parts, edit.indices[site.module].long())[1]) + offset)
            offset += parts
        return torch.cat(found)

    def factors(self, edit: Edit) -> Tensor:
        """Return the factor (k,) of each component that an edit changes, in the order of `components`."""
        found = [torch.zeros(0)]
        for site, parts in zip(self.sites, self.parts, strict=True):
            if site.module in edit.indices:
                here, numbers = self._contract(site, parts, edit.indices[site.module].long())
                changed, places = torch.unique(numbers, return_inverse=True)
                own = edit.factors[site.module][here] if edit.factors else torch.full(numbers.shape, float(edit.factor))
                found.append(torch.zeros(len(changed)).index_put_((places,), own))
        return torch.cat(found)

    def intervention(self, selected: Tensor, factors: float | Tensor = 0.0, meta: dict[str, Any] | None = None) -> Edit:
        """Make the edit that multiplies the columns of the selected components (k,) by a factor."""
        selected, order = selected.long().sort()
        located = self._located(selected)
        places = {name: indices for name, (indices, _) in located.items()}
        own = None if isinstance(factors, float | int) else factors.float()[order]
        each = {} if own is None else {name: own[owners] for name, (_, owners) in located.items()}
        rows = {site.module: self._rows(site) for site in self.sites}
        facts = {
            "granularity": self.name,
            "kinds": list(self.kinds),
            "factor": factors if own is None else None,
            "achieved": len(selected),
            "components": self.n,
            "changed": sum(len(indices) * rows[name] for name, indices in places.items()),
        }
        factor = factors if isinstance(factors, float | int) else 0.0
        return Edit(places, self.unit, factor, facts | (meta or {}), factors=each)

    def _rows(self, site: Site) -> int:
        """Return how many weights one index stands for."""
        return site.shape[0]

    def segments(self, scope: str) -> list[tuple[int, int, int]]:
        """Return the groups in which components compete. UserError for a scope that it does not have."""
        if self._checked(scope) == "global":
            return [(0, 1, self.n)]
        runs, start = [], 0
        for site, parts in zip(self.sites, self.parts, strict=True):
            runs.append((start, *(site.shape if scope == "row" else (1, parts))))
            start += parts
        return runs

    def sizes(self) -> Tensor:
        """Return the number (n,) of weights of each component."""
        pieces = [torch.full((parts,), site.size // parts) for site, parts in zip(self.sites, self.parts, strict=True)]
        return torch.cat([torch.zeros(0, dtype=torch.long), *pieces])

    def narrow(self, kinds: Iterable[str] | None) -> tuple[ComponentSpace, Tensor]:
        """Return the components in sites of these kinds. UserError for a kind that was not attributed."""
        chosen = self.granularity if kinds is None else self.granularity.narrowed(kinds)
        absent = [kind for kind in chosen.kinds if not self.granularity.covers(kind)]
        if absent:
            raise UserError(f"the {self.name} attribution has no {absent[0]}: attribute it with kinds that hold it")
        keep = [
            torch.full((parts,), chosen.covers(site.kind)) for site, parts in zip(self.sites, self.parts, strict=True)
        ]
        return chosen.on(self.all_sites), torch.cat([torch.zeros(0, dtype=torch.bool), *keep])

    def singles(self) -> ComponentSpace:
        """Return the same sites as a space of single weights."""
        return self.granularity.singles().on(self.all_sites)

    def empty(self) -> str:
        """Return which kinds were asked for, and which the model has."""
        here = ", ".join(dict.fromkeys(site.kind for site in self.all_sites))
        kinds = ", ".join(self.kinds)
        return f"there is no {self.name} among {kinds} here: choose other granularity.kinds of {here}"
