"""What takes the place of an erased object that has no base prompt: the nearest of the things that are to stay."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from cad_exp.pipeline.stage import Derived, Stage, Tick
from cad_exp.pipeline.stages.model import Model
from cad_exp.pipeline.stages.noisy_latents import PromptLatents
from cad_exp.utils import distributed

if TYPE_CHECKING:
    from cad_exp.data.noisy_latents import NoisyLatents
    from cad_exp.pipeline.runtime import Runtime

FILE = "nearest.json"


@dataclass(frozen=True, eq=False)
class NearestPrompt(Stage[str]):
    """Of several prompts the one for which the model predicts what is most like its predictions for the concept.

    power: how much more early steps count.
    """

    folder: ClassVar[str] = "nearest"
    shared: ClassVar[bool] = True  # else one process alone would load the noisy latents, and the others wait for it
    model: Model
    latents: PromptLatents
    prompts: tuple[str, ...]
    power: float
    batch_size: int

    @property
    def what(self) -> str:
        """What is looked for."""
        return "the nearest of what is to stay"

    def make(self, runtime: Runtime, folder: Path, tick: Tick) -> None:
        """Compare the predictions."""
        from cad_exp.attribution.gates.task import distances

        latents, model = runtime.get(self.latents), runtime.get(self.model)
        found = distances(model, latents, self.prompts, self.power, self.batch_size)
        if distributed.main():
            (folder / FILE).write_text(json.dumps(dict(zip(self.prompts, found, strict=True)), indent=1))

    def load(self, runtime: Runtime, folder: Path) -> str:
        """Return the nearest prompt."""
        apart: dict[str, float] = json.loads((folder / FILE).read_text())
        return min(apart, key=apart.__getitem__)


@dataclass(frozen=True, eq=False)
class Nearest(Derived["NoisyLatents"]):
    """Noisy latents of the nearest prompt; those of the others are not made."""

    choice: NearestPrompt
    each: tuple[PromptLatents, ...]

    def derive(self, runtime: Runtime) -> NoisyLatents:
        """Make those of the prompt that was chosen."""
        prompt = runtime.get(self.choice)
        return runtime.get(next(each for each in self.each if each.prompt == prompt))
