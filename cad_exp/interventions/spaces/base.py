"""What a component space is: it says what gates mean, and is all that objectives, estimators and studies know of them.

A space has `n` components. Gates are n numbers: 1 leaves a component as it is, 0 ablates it. There are two kinds of
spaces: columns and entries of weights (`columns`, `entries`), and directions of an activation (`directions`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import IntEnum
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from cad_exp.interventions.edit import Edit
from cad_exp.interventions.gating import Ready, Replacements, Tap
from cad_exp.interventions.spaces.sites import Site
from cad_exp.models.pipeline import DiffusionModel
from cad_exp.utils.errors import UserError, choose

TABLE = ["index", "module", "block", "kind", "component", "name", "start", "stop"]
SCOPES = ("row", "layer", "global")


class Scale(IntEnum):
    """How many components a model has of a sort; it decides which estimators can afford them."""

    FEW = 0  # heads, layers: hundreds
    MANY = 1  # neurons, latents: up to a million
    WEIGHTS = 2  # single weights: up to a billion


class Gating(ABC):
    """One set of gates, made ready for one model: what differs from batch to batch is added by `ready`.

    taps: the activations whose replacement it needs. text: prompts must be encoded anew, under these gates.
    """

    taps: Sequence[Tap]
    text: bool = False

    @abstractmethod
    def ready(self, replacements: Replacements) -> Ready:
        """Return what opens a context in which the model predicts with these gates; it may be opened many times."""

    @abstractmethod
    def differentiate(self) -> None:
        """Collect gradients from now on, in fp32."""

    @abstractmethod
    def slopes(self) -> dict[str, Tensor]:
        """Return the gradient collected in all processes, per place as `split` has them, fp32 on the CPU."""


class RowGating(ABC):
    """A set of gates for each of A ablations. `self[rows]` is one batch's, whose rows belong to these ablations.

    changed: module -> (A,) bool, on the CPU, which ablations change it.
    """

    changed: dict[str, Tensor]
    taps: Sequence[Tap]
    text: bool = False

    @abstractmethod
    def __getitem__(self, rows: Tensor) -> RowGating:
        """Return the gates of a batch (B,) of ablations, in those modules only that one of them changes."""

    @abstractmethod
    def ready(self, replacements: Replacements) -> Ready:
        """Return what opens a context in which each row has the gates of its ablation, as for a Gating."""


class ComponentSpace(ABC):
    """`n` components of a model, numbered from 0. What a space can do stands in its class's attributes.

    all_sites: the output projections that it was cut from, all that were given; sites: those that have components. None
    for directions.
    """

    name: str  # of the granularity: head, neuron, ...
    kinds: tuple[str, ...]  # of site that take part
    n: int
    form: str = ""  # what a file calls a space that was not cut from sites (`directions.RESTORED`)
    settings: Mapping[str, Any] = {}  # of a plug-in's granularity that cut it
    all_sites: Sequence[Site] = ()
    sites: Sequence[Site] = ()
    scale: Scale = Scale.MANY
    scopes: tuple[str, ...] = ("layer", "global")  # groups in which components can compete
    per_row: bool = True  # whether the rows of one batch may have gates of their own
    of_weights: bool = False  # whether a component is a set of weights
    has_values: bool = False  # whether `values` tells how much of a component an activation has
    row_each: bool = True  # whether the table has one row per component

    @property
    @abstractmethod
    def taps(self) -> list[Tap]:
        """The activations that gates act on, each once."""

    @abstractmethod
    def table(self) -> pd.DataFrame:
        """Return one row per component: index, module, block, kind, component (in its site), name, start, stop."""

    def tabulate(self, values: Tensor) -> Tensor:
        """Return values (n,) as a column of the table."""
        return values

    @contextmanager
    def gated(self, model: DiffusionModel, gates: Tensor, replacements: Replacements | None = None) -> Iterator[None]:
        """Let the model predict with these gates meanwhile: (n,) for all rows of a batch, or (B, n), one set per row.

        Differentiable in the gates. Prompts are to be encoded within where components of text encoders are gated.
        """
        gating = self.gating(model, gates) if gates.ndim == 1 else self.row_gating(model, gates)
        with gating.ready(replacements or {})():
            yield

    @abstractmethod
    def gating(self, model: DiffusionModel, gates: Tensor) -> Gating:
        """Return gates (n,), made ready for all rows of a batch."""

    def row_gating(self, model: DiffusionModel, gates: Tensor) -> RowGating:
        """Return gates (A, n) of A ablations, made ready. UserError where rows cannot have gates of their own."""
        raise UserError(f"rows of one batch cannot have gates of their own for granularity {self.name}")

    @abstractmethod
    def split(self, gates: Tensor) -> dict[str, Tensor]:
        """Return numbers (..., n) by place, as the model is gated."""

    @abstractmethod
    def join(self, places: dict[str, Tensor]) -> Tensor:
        """Return numbers (n,) fp32 from those by place: each component's is the sum over all that it has there."""

    @abstractmethod
    def intervention(self, selected: Tensor, factors: float | Tensor = 0.0, meta: dict[str, Any] | None = None) -> Edit:
        """Make the edit that multiplies the selected components (k,) by a factor, or each by its own (k,).

        Its meta says what was changed; `meta` is added to it.
        """

    @abstractmethod
    def components(self, edit: Edit) -> Tensor:
        """Return the sorted numbers (k,) int64 of the components that an edit of this space changes."""

    @abstractmethod
    def factors(self, edit: Edit) -> Tensor:
        """Return the factor (k,) fp32 of each component that an edit of this space changes, as `components` has them.

        The file of an edit holds no list of them beside its tensors: of millions of weights it could not be written.
        """

    @abstractmethod
    def segments(self, scope: str) -> list[tuple[int, int, int]]:
        """Return the groups in which components compete: (start, groups, group size) runs of the score vector.

        scope `row`: one group per output row of a matrix (weights only); `layer`: one per site; `global`: all together.
        """

    def groups(self, scope: str) -> Tensor:
        """Return the group number (n,) of every component for a scope."""
        pieces, first = [torch.zeros(0, dtype=torch.long)], 0
        for _, groups, size in self.segments(scope):
            pieces.append(torch.arange(first, first + groups).repeat_interleave(size))
            first += groups
        return torch.cat(pieces)

    def sizes(self) -> Tensor:
        """Return the size (n,) int64 of each component, in weights; a random edit draws as many of each size."""
        return torch.ones(self.n, dtype=torch.long)

    def randomised(self, seed: int) -> ComponentSpace:
        """Return the space from which a random edit draws where the edit takes every component; itself by default."""
        return self

    def narrow(self, kinds: Iterable[str] | None) -> tuple[ComponentSpace, Tensor]:
        """Return the components in sites of these kinds (None: all), and which (n,) bool they are.

        Raises UserError if there are none.
        """
        if kinds is not None and set(kinds) != set(self.kinds):
            raise UserError(f"the {self.name} attribution has no kinds to choose from: leave granularity.kinds open")
        return self, torch.ones(self.n, dtype=torch.bool)

    def singles(self) -> ComponentSpace:
        """Return the weights of all components as a space of single weights; for spaces `of_weights`."""
        raise UserError(f"components of granularity {self.name} are no weights")

    def magnitudes(self, model: DiffusionModel, factors: dict[str, Tensor] | None = None) -> Tensor:
        """Return the sum (n,) of |w|, each times the factor of its column (in,); for spaces `of_weights`."""
        raise UserError(f"components of granularity {self.name} are no weights")

    def values(self, tap: Tap, activation: Tensor) -> Tensor:
        """Return how much of each component of a tap is in an activation (..., features): (..., n of the tap)."""
        raise UserError(f"components of granularity {self.name} have no values in activations")

    def empty(self) -> str:
        """Return what is wrong where there are no components."""
        return f"the space {self.name} has no components: give one or more"

    def _checked(self, scope: str) -> str:
        choose(scope, SCOPES, "scope")
        if scope not in self.scopes:
            fit = " or scope=".join(self.scopes)
            raise UserError(f"granularity {self.name} has no scope '{scope}': use scope={fit}")
        return scope

    def saved(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return tensors and JSON from which `restored` makes the space again, without its sites and kinds."""
        return {}, {}
