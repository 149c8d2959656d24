"""Cells of a run: one hookpoint, k and width each, with the autoencoders that differ in their seed alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cad_exp.pipeline.stages.autoencoders import Autoencoders, Everywhere, Plan, Trained

if TYPE_CHECKING:
    from cad_exp.pipeline.runtime import Runtime


@dataclass(frozen=True)
class Cell:
    """One hookpoint, k and width. plan: of the first seed; trained: of all seeds, and with a frozen decoder.

    suffix: "@" and hookpoint, k or width, as far as there are several: what tells its metrics from others'.
    """

    own: Autoencoders
    plan: Plan
    trained: tuple[Trained, ...]
    suffix: str

    @property
    def first(self) -> Trained:
        """The autoencoder of the first seed, which is shown and compared with its rivals."""
        return min((each for each in self.trained if not each.plan.frozen), key=lambda each: each.plan.seed)


def cells(runtime: Runtime, everywhere: Everywhere) -> list[Cell]:
    """Return the cells of a run, by hookpoint in network order, then by k and width."""
    groups: dict[tuple[str, int, int | str], list[Trained]] = {}
    stages = runtime.get(everywhere)
    for name, stage in stages.items():
        for each in runtime.get(stage):
            groups.setdefault((name, each.plan.k, each.plan.width), []).append(each)
    return [
        Cell(stages[group[0]], trained[0].plan, tuple(trained), _suffix(group, list(groups)))
        for group, trained in groups.items()
    ]


def _suffix(group: tuple[str, int, int | str], groups: Sequence[tuple[str, int, int | str]]) -> str:
    parts = (group[0], f"k={group[1]}", f"width={group[2]}")
    several = [len(set(column)) > 1 for column in zip(*groups, strict=True)]
    return "".join(f"@{part}" for part, more in zip(parts, several, strict=True) if more)
