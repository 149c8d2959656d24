"""Gates of all components at once, trained for what an edit is to lose and to keep."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from cad_exp.pipeline.stage import Chosen, Derived, Stage, Tick
from cad_exp.pipeline.stages.instead import Nearest
from cad_exp.pipeline.stages.model import Model
from cad_exp.pipeline.stages.noisy_latents import PromptLatents, tell_apart
from cad_exp.pipeline.stages.scores import SpaceScores
from cad_exp.utils import distributed
from cad_exp.utils.errors import UserError
from cad_exp.utils.registry import fitting

if TYPE_CHECKING:
    from torch import Tensor

    from cad_exp.attribution.gates.task import Task
    from cad_exp.interventions.edit import Edit
    from cad_exp.pipeline.runtime import Runtime

FILE = "gates.safetensors"


@dataclass(frozen=True, eq=False)
class GatesTask(Derived["Task"]):
    """What gates are to lose and to keep, at noisy latents of the concept and of each prompt that is to stay.

    scores: of the same components. beyond: how far past the prediction for the prompt in its place the concept's is
    led. power: how much more early steps count. base_prompt: what takes the concept's place where nothing lands.
    landing: of the prompts whose images take the place of `latents`'.
    """

    model: Model
    scores: SpaceScores
    latents: tuple[PromptLatents, ...]
    retained: tuple[PromptLatents, ...]
    beyond: float
    power: float
    base_prompt: str
    landing: tuple[PromptLatents | Nearest, ...] = ()

    def instead(self, runtime: Runtime) -> str:
        """Return the prompt whose images take the concept's place; empty where there is none."""
        if not self.landing:
            return self.base_prompt
        first = self.landing[0]
        prompt = runtime.get(first.choice) if isinstance(first, Nearest) else first.prompt
        more = len(self.landing) - 1
        return f"{prompt}, and {more} more: each thing without the style" if more else prompt

    def derive(self, runtime: Runtime) -> Task:
        """Bring the noisy latents together."""
        from cad_exp.attribution.gates.task import Task

        space = runtime.get(self.scores).space(self.scores.granularity)
        runtime.all([part for each in self.latents for part in each.parts], "noisy latents of what is to go")
        runtime.all([part for each in self.retained for part in each.parts], "noisy latents of what is to stay")
        latents, retained, landing = (
            [runtime.get(each) for each in several] for several in (self.latents, self.retained, self.landing)
        )
        for concept, other in zip(latents, landing, strict=False):  # none where nothing takes the place
            tell_apart(runtime.get(self.model), concept.prompt, other.prompt)
        size = self.scores.scores.question.batch_size
        how = (self.beyond, self.power, size, landing, self.base_prompt)
        return Task(runtime.get(self.model), space, latents, retained, *how)


@dataclass(frozen=True, eq=False)
class Gates(Stage["Tensor"]):
    """The gates (n,) that a method finds at one strength. start: where it begins; None: at the intact model."""

    folder: ClassVar[str] = "gates"
    shared: ClassVar[bool] = True
    task: GatesTask
    method: Chosen
    strength: float
    steps: int
    seed: int
    start: Gates | None = None

    @property
    def work(self) -> int:
        """Number of steps."""
        return self.steps

    def make(self, runtime: Runtime, folder: Path, tick: Tick) -> None:
        """Find the gates."""
        from safetensors.torch import save_file

        from cad_exp.interventions.methods import METHODS

        start = None if self.start is None else runtime.get(self.start)
        method = METHODS.of(self.method.settings)
        own = self.method.settings | {"steps": self.steps, "seed": self.seed, "start": start, "progress": tick}
        own = fitting(method.gates, own, f"edit {self.method.name}", 2)
        found = method.gates(runtime.get(self.task), self.strength, **own)
        if distributed.main():
            save_file({"gates": found.contiguous()}, folder / FILE)

    def load(self, runtime: Runtime, folder: Path) -> Tensor:
        """Read the gates."""
        from safetensors.torch import load_file

        return load_file(folder / FILE)["gates"]


@dataclass(frozen=True, eq=False)
class GatesEdit(Derived["Edit"]):
    """The edit of gates, without those that changed by less than `least`.

    scores: for what stands beside it. tried: whether it is one of several, which may change nothing.
    """

    gates: Gates
    scores: SpaceScores
    least: float
    tried: bool

    def derive(self, runtime: Runtime) -> Edit:
        """Make the edit. UserError where no gate has changed, unless it is one of several."""
        from cad_exp.attribution.gates.task import edit_of

        scored, found = runtime.get(self.scores), self.gates
        asked = {"strength": found.strength, "beyond": found.task.beyond, "instead": found.task.instead(runtime)}
        meta = dict(scored.meta) | {"edit": found.method.name, **asked}
        edit = edit_of(scored.space(self.scores.granularity), runtime.get(found), self.least, meta)
        if edit.empty and not self.tried:
            raise UserError(
                f"edit={found.method.name} changes no component by edit.least={self.least} or more: a larger "
                "edit.strength changes more, and so do more edit.steps"
            )
        return edit
