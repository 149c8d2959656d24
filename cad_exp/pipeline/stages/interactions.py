"""How components work together: J to second order in their gates."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from cad_exp.pipeline.stage import Stage, Tick
from cad_exp.pipeline.stages.ablations import GameOfJ
from cad_exp.utils import distributed

if TYPE_CHECKING:
    from cad_exp.attribution.interactions.second_order import SecondOrder
    from cad_exp.pipeline.runtime import Runtime

FILE = "interactions.safetensors"
KINDS = ("offset", "factor", "diagonal")


@dataclass(frozen=True, eq=False)
class SecondOrderOfJ(Stage["SecondOrder"]):
    """What ablations do to J beyond the sum of scores, at some noisy latents. seed: of random signs."""

    folder: ClassVar[str] = "second_order"
    shared: ClassVar[bool] = True
    game: GameOfJ
    seed: int

    def make(self, runtime: Runtime, folder: Path, tick: Tick) -> None:
        """Measure the interactions."""
        from safetensors.torch import save_file

        from cad_exp.attribution.interactions.second_order import second_order

        found = second_order(runtime.get(self.game), seed=self.seed)
        tensors = {"scores": found.scores, "fading": found.fading, "pairs": found.pairs}
        tensors |= {kind: getattr(found.sketch, kind) for kind in KINDS} if found.sketch else {}
        if distributed.main():
            kept = {name: each.contiguous() for name, each in tensors.items() if each is not None}
            save_file(kept, folder / FILE, {"trace": repr(found.trace)})

    def load(self, runtime: Runtime, folder: Path) -> SecondOrder:
        """Read the interactions."""
        from safetensors import safe_open

        from cad_exp.attribution.interactions.quadratic import Quadratic
        from cad_exp.attribution.interactions.second_order import SecondOrder

        with safe_open(folder / FILE, framework="pt") as file:
            found = {name: file.get_tensor(name) for name in file.keys()}  # it is no mapping
            trace = float(file.metadata()["trace"])
        sketch = Quadratic(*(found[kind] for kind in KINDS)) if KINDS[0] in found else None
        return SecondOrder(found["scores"], found["fading"], trace, found.get("pairs"), sketch)
