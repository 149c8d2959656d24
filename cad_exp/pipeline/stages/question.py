"""The question of a run: an objective, before it is known at which noisy latents it is asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cad_exp.attribution.objectives import OBJECTIVES, formula_name
from cad_exp.evaluation.judges import JUDGES
from cad_exp.pipeline.stage import Chosen, Derived
from cad_exp.pipeline.stages.judge import Judge
from cad_exp.pipeline.stages.model import Model
from cad_exp.pipeline.stages.noisy_latents import PromptLatents
from cad_exp.utils.errors import UserError

if TYPE_CHECKING:
    from cad_exp.attribution.objectives.build import Objective
    from cad_exp.data.noisy_latents import NoisyLatents
    from cad_exp.pipeline.runtime import Runtime


@dataclass(frozen=True, eq=False)
class Question(Derived["Callable[..., Objective]"]):
    """An objective without its noisy latents. Its value is a function: (noisy latents, retained=None) -> Objective.

    retained: noisy latents of the prompts that the objective is to keep as they are. judge, kind, label: for
    objectives that ask a judge of images; None for all others. batch_size: noisy latents in one pass.
    """

    chosen: Chosen
    model: Model
    batch_size: int
    retained: tuple[PromptLatents, ...] = ()
    judge: Judge | None = None
    kind: str | None = None
    label: str | None = None

    def requires(self) -> None:
        """Check that an objective that asks a judge of images has one, and a label where it asks for that."""
        name = self.chosen.name
        asks = OBJECTIVES.fact(formula_name(self.chosen.settings), "asks")
        if asks and self.judge is None:
            raise UserError(
                f"objective={name} needs a judge and there is none: choose judge={' or judge='.join(JUDGES)}, "
                "or objective=erase"
            )
        if "logits" in asks and not (self.kind and self.label):
            raise UserError(
                f"objective={name} needs a label that the judge knows: give concept.kind and concept.label, "
                "or objective=clip"
            )

    def derive(self, runtime: Runtime) -> Callable[..., Objective]:
        """Return what makes the objective at some noisy latents."""
        kept = [runtime.get(each) for each in self.retained]

        def at(latents: NoisyLatents, retained: Sequence[NoisyLatents] | None = None) -> Objective:
            from cad_exp.attribution.objectives.build import make_objective

            context: dict[str, Any] = {"retained": kept if retained is None else list(retained)}
            if self.judge is not None:
                context |= {"judge": runtime.get(self.judge), "kind": self.kind, "label": self.label}
            how = (self.batch_size, None, context)
            return make_objective(self.chosen.name, runtime.get(self.model), latents, *how, **self.chosen.own)

        return at

    def kept(self, runtime: Runtime, rows: Callable[[NoisyLatents], NoisyLatents]) -> list[NoisyLatents]:
        """Return the retained noisy latents, of each what `rows` selects."""
        return [rows(runtime.get(each)) for each in self.retained]
