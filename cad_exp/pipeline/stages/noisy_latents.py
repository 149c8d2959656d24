"""Noisy latents: the points (x_t, t) at which the model is asked, on trajectories or on noised images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from cad_exp.pipeline.stage import Derived, Stage, Tick
from cad_exp.pipeline.stages.images import GivenImages, Pictures
from cad_exp.pipeline.stages.model import Model
from cad_exp.utils.errors import UserError

if TYPE_CHECKING:
    import torch

    from cad_exp.data.noisy_latents import NoisyLatents
    from cad_exp.models.pipeline import DiffusionModel
    from cad_exp.pipeline.runtime import Runtime

FILE = "noisy_latents.safetensors"


@dataclass(frozen=True, eq=False)
class _Latents(Stage["NoisyLatents"]):
    """A stage whose file holds noisy latents."""

    def load(self, runtime: Runtime, folder: Path) -> NoisyLatents:
        """Read the noisy latents."""
        from cad_exp.data.noisy_latents import NoisyLatents

        return NoisyLatents.load(folder / FILE)


@dataclass(frozen=True, eq=False)
class Walk(_Latents):
    """Trajectories of the base prompt without guidance: one walk serves all concepts."""

    folder: ClassVar[str] = "walks"
    model: Model
    base_prompt: str
    seeds: tuple[int, ...]
    steps: int

    def make(self, runtime: Runtime, folder: Path, tick: Tick) -> None:
        """Walk from noise to image, one trajectory a seed."""
        from cad_exp.data.noisy_latents import walk

        model, seeds = runtime.get(self.model), list(self.seeds)
        walk(model, self.base_prompt, seeds, self.steps, len(seeds), progress=tick).save(folder / FILE)


@dataclass(frozen=True, eq=False)
class Trajectories(_Latents):
    """Every step of guided trajectories of a prompt, one trajectory a seed; along a walk if there is one.

    batch_size: trajectories that are walked at once, at least as many as there are seeds.
    """

    folder: ClassVar[str] = "noisy_latents"
    model: Model
    prompt: str
    base_prompt: str
    seeds: tuple[int, ...]
    steps: int
    guidance: float
    batch_size: int
    walk: Walk | None = None

    @property
    def work(self) -> int:
        """Steps of all trajectories."""
        return len(self.seeds) * self.steps

    def make(self, runtime: Runtime, folder: Path, tick: Tick) -> None:
        """Sample the trajectories. UserError where the model cannot tell the prompt from the base prompt."""
        from cad_exp.data.noisy_latents import NoisyLatents, look, sample_trajectory

        model = runtime.get(self.model)
        tell_apart(model, self.prompt, self.base_prompt)
        if self.walk is not None:
            walked = NoisyLatents.load(runtime.entry(self.walk, tick) / FILE)
            look(model, walked, self.prompt, 2 * self.batch_size).save(folder / FILE)
            return
        how = (list(self.seeds), self.steps, self.guidance, self.batch_size)
        sample_trajectory(model, self.prompt, self.base_prompt, *how, progress=tick).save(folder / FILE)


@dataclass(frozen=True, eq=False)
class Noised(_Latents):
    """Noised images of a prompt: n points with their denoising targets, on images given or made."""

    folder: ClassVar[str] = "noisy_latents"
    model: Model
    prompt: str
    base_prompt: str
    n: int
    seed: int
    batch_size: int
    images: GivenImages | Pictures

    @property
    def work(self) -> int:
        """Number of points."""
        return self.n

    def make(self, runtime: Runtime, folder: Path, tick: Tick) -> None:
        """Noise the images. UserError where the model cannot tell the prompt from the base prompt."""
        from cad_exp.data.noisy_latents import sample_noised

        model = runtime.get(self.model)
        tell_apart(model, self.prompt, self.base_prompt)
        origin, shown = self.images.origin, self.images.pixels(runtime, model.resolution)
        sampled = sample_noised(
            model,
            self.prompt,
            self.base_prompt,
            images=shown,
            n=self.n,
            seed=self.seed,
            batch_size=self.batch_size,
            progress=tick,
            origin=origin,
        )
        sampled.save(folder / FILE)


@dataclass(frozen=True, eq=False)
class PromptLatents(Derived["NoisyLatents"]):
    """All noisy latents of a prompt, made in parts.

    independent: keep one step of each trajectory only, spread evenly from the first step to the last.
    """

    parts: tuple[Trajectories, ...] | tuple[Noised]
    independent: bool = False

    @property
    def prompt(self) -> str:
        """The prompt, which all parts share."""
        return self.parts[0].prompt

    def derive(self, runtime: Runtime) -> NoisyLatents:
        """Join the parts as if they had been sampled at once."""
        from cad_exp.data.noisy_latents import NoisyLatents

        made = runtime.all(self.parts, "noisy latents")
        if isinstance(self.parts[0], Noised):
            return made[0]
        whole = NoisyLatents.join(made)
        trajectories = sum(len(part.seeds) for part in self.parts)
        return whole[spread_steps(trajectories, self.parts[0].steps)] if self.independent else whole


def spread_steps(trajectories: int, steps: int) -> torch.Tensor:
    """Return rows of joined trajectories, (trajectories,) int64: one step of each, spread from the first to the last.

    With as many trajectories as steps every step is there once, each of a trajectory of its own.
    """
    import torch

    number = torch.arange(trajectories)
    return number * steps + (2 * number + 1) * steps // (2 * trajectories)


def tell_apart(model: DiffusionModel, prompt: str, base_prompt: str) -> None:
    """Check that the model reads the two prompts as different texts: tokenizers ignore white space and case, and cut.

    Raises:
        UserError: both are the same to the model.
    """
    import torch

    one, other = (model.encode([text]) for text in (prompt, base_prompt))
    pairs = [(one.text, other.text), *((value, other.extras[name]) for name, value in one.extras.items())]
    if all(torch.equal(*pair) for pair in pairs):
        first, second = (repr(text if len(text) < 60 else f"{text[:57]}...") for text in (prompt, base_prompt))
        raise UserError(
            f"the model reads the prompts {first} and {second} as the same text (case, white space and "
            "what is beyond its length do not count), so there is nothing to look for: choose another one"
        )
