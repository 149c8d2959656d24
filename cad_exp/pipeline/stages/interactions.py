"""How components work together: what is left of the concept and how far all else moves, to second order."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from cad_exp.pipeline.stage import Chosen, Stage, Tick
from cad_exp.pipeline.stages.ablations import GameOfJ
from cad_exp.pipeline.stages.model import Model
from cad_exp.pipeline.stages.noisy_latents import PromptLatents
from cad_exp.pipeline.stages.scores import SHARED, SpaceScores
from cad_exp.utils import distributed
from cad_exp.utils.registry import TARGET

if TYPE_CHECKING:
    from cad_exp.attribution.interactions.quadratic import Quadratic
    from cad_exp.attribution.interactions.second_order import SecondOrder
    from cad_exp.interventions.edit import Edit
    from cad_exp.interventions.spaces import ComponentSpace
    from cad_exp.pipeline.runtime import Runtime

FILE, EDIT = "interactions.safetensors", "edit.safetensors"
PARTS, KINDS = ("concept", "retained"), ("offset", "factor", "diagonal")


@dataclass(frozen=True, eq=False)
class Interactions(Stage[tuple["Quadratic", "Quadratic"]]):
    """The two functions of the gates of one granularity's components, in some kinds of module (None: its usual ones).

    latents: of the concept. retained: of each prompt that is to stay. projections: random ones of every prediction.
    seed: of these. batch_size: noisy latents in one pass.
    """

    folder: ClassVar[str] = "interactions"
    shared: ClassVar[bool] = True
    model: Model
    latents: PromptLatents
    retained: tuple[PromptLatents, ...]
    granularity: Chosen
    kinds: tuple[str, ...] | None
    projections: int
    seed: int
    batch_size: int

    @property
    def work(self) -> int:
        """Number of prompts."""
        return 1 + len(self.retained)

    def inputs(self, runtime: Runtime) -> Any:
        """Return the fields, and the content of files that the granularity names."""
        from cad_exp.interventions.granularity_registry import contents

        return super().inputs(runtime) | {"files": contents(self.granularity.settings)}

    def make(self, runtime: Runtime, folder: Path, tick: Tick) -> None:
        """Sketch all predictions."""
        from safetensors.torch import save_file

        from cad_exp.attribution.interactions import sketch

        model = runtime.get(self.model)
        sketcher = sketch.Sketcher(model, self.space(runtime), self.projections, self.seed, self.batch_size)
        found = sketch.concept(sketcher, runtime.get(self.latents))
        tick(1, self.work)
        kept = sketch.retained(
            sketcher, [runtime.get(each) for each in self.retained], lambda done, of: tick(1 + done, 1 + of)
        )
        if distributed.main():
            parts = dict(zip(PARTS, (found, kept), strict=True))
            tensors = {f"{name}.{kind}": getattr(part, kind) for name, part in parts.items() for kind in KINDS}
            save_file(tensors, folder / FILE)

    def load(self, runtime: Runtime, folder: Path) -> tuple[Quadratic, Quadratic]:
        """Return what is left of the concept, and how far the others move."""
        from safetensors.torch import load_file

        from cad_exp.attribution.interactions.quadratic import Quadratic

        found = load_file(folder / FILE)
        first, second = (Quadratic(*(found[f"{name}.{kind}"] for kind in KINDS)) for name in PARTS)
        return first, second

    def space(self, runtime: Runtime) -> ComponentSpace:
        """Return the components."""
        from cad_exp.attribution.attribute import spaces_of
        from cad_exp.interventions.spaces import make_granularity

        own = {key: value for key, value in self.granularity.own.items() if key not in (*SHARED, TARGET)}
        [space] = spaces_of(runtime.get(self.model), [make_granularity(self.granularity.name, self.kinds, **own)])
        return space


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


@dataclass(frozen=True, eq=False)
class JointEdit(Stage["Edit"]):
    """The edit of a method that chooses all gates at once. scores: of the same components, for what stands beside it.

    seed: of random choices.
    """

    folder: ClassVar[str] = "joint_edits"
    scores: SpaceScores
    interactions: Interactions
    method: Chosen

    def make(self, runtime: Runtime, folder: Path, tick: Tick) -> None:
        """Solve for the gates. UserError where nothing is worth a change."""
        from cad_exp.interventions.methods import METHODS, own_settings

        concept, retained = runtime.get(self.interactions)
        settings = own_settings(self.method.settings)
        own = {key: value for key, value in settings.items() if key not in SKETCHED}
        scored = runtime.get(self.scores)
        chosen = METHODS.of(self.method.settings).choose(
            scored.space(self.scores.granularity), concept, retained, **own, meta=dict(scored.meta)
        )
        chosen.meta["edit"] = self.method.name
        chosen.save(folder / EDIT)

    def load(self, runtime: Runtime, folder: Path) -> Edit:
        """Read the edit."""
        from cad_exp.interventions.edit import Edit

        return Edit.load(folder / EDIT)


# settings of such a method that say how interactions are measured, and are not its own
SKETCHED = ("projections", "trajectories", "retain")
