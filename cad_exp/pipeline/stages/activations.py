"""Activations of a model at hookpoints, for a batch of labelled images at some timesteps.

Each batch is a stage of its own: one that is killed goes on with the next, processes share them, and a batch that fails
stops the run. So rows cannot shift.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from cad_exp.pipeline.stage import Stage, Tick
from cad_exp.pipeline.stages.labelled_images import LabelledImages
from cad_exp.pipeline.stages.model import Model
from cad_exp.pipeline.stages.shards import Shards

if TYPE_CHECKING:
    import torch

    from cad_exp.pipeline.runtime import Runtime

CAPTION = "caption"  # in place of a prompt: each image's own
FILE = "activations.safetensors"


@dataclass(frozen=True, eq=False)
class Encoded(Stage["torch.Tensor"]):
    """The clean latents (images, C, h, w) of labelled images; the network and its untrained twin share them."""

    folder: ClassVar[str] = "encoded_images"
    model: Model
    images: LabelledImages

    def make(self, runtime: Runtime, folder: Path, tick: Tick) -> None:
        """Encode the images."""
        from safetensors.torch import save_file

        latents = runtime.get(self.model).encode_images(runtime.get(self.images).images, batch_size=64)
        save_file({"latents": latents.cpu().contiguous()}, folder / FILE)

    def load(self, runtime: Runtime, folder: Path) -> torch.Tensor:
        """Read the latents."""
        from safetensors.torch import load_file

        return load_file(folder / FILE)["latents"]


@dataclass(frozen=True, eq=False)
class Activations(Stage[Shards]):
    """Activations (images, timesteps, draws, ...) fp32 by hookpoint, read when they are needed.

    hookpoints: kinds, names or patterns. timesteps: of the model. draws: of the noise, for each image and timestep.
    prompt: for all images; `caption`: each image's own. pooling: mean, grid or map. untrained: seed of random weights
    in place of the model's; None: its own.
    """

    folder: ClassVar[str] = "activations"
    model: Model
    images: LabelledImages
    hookpoints: tuple[str, ...]
    timesteps: tuple[int, ...]
    draws: int
    seed: int
    prompt: str
    pooling: str
    batch_size: int
    untrained: int | None = None

    @property
    def what(self) -> str:
        """How the terminal calls it."""
        return "activations" if self.untrained is None else "activations, random weights"

    @property
    def work(self) -> int:
        """Number of rows."""
        return self.images.count * len(self.timesteps) * self.draws

    def make(self, runtime: Runtime, folder: Path, tick: Tick) -> None:
        """Noise the images and read the hookpoints."""
        from cad_exp.representations.activations import Noising, extract
        from cad_exp.representations.hookpoints import choose_hookpoints
        from cad_exp.representations.untrained import untrained

        model, labelled = runtime.get(self.model), runtime.get(self.images)
        places = choose_hookpoints(model, self.hookpoints)
        numbers = range(self.images.first, self.images.first + self.images.count)
        prompts = labelled.captions if self.prompt == CAPTION else [self.prompt]
        noising = Noising(self.timesteps, self.draws, self.seed)
        latents = runtime.get(Encoded(self.model, self.images))
        with untrained(model, self.untrained) if self.untrained is not None else nullcontext():
            how = (prompts, self.pooling, self.batch_size, tick)
            found = extract(model, latents, numbers, places, noising, *how)
        Shards.write(folder / FILE, found)

    def load(self, runtime: Runtime, folder: Path) -> Shards:
        """Return where the activations are."""
        return Shards.of(folder / FILE)
