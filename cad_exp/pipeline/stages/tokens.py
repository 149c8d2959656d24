"""Tokens of a model at hookpoints for a batch of labelled images: the shards that autoencoders learn from.

Each batch of images is a stage of its own, and so a shard: one that is killed goes on with the next, processes share
them, and a batch that fails stops the run. Beside the tokens lies an index: which image, timestep and position each is.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from cad_exp.pipeline.stage import Stage, Tick
from cad_exp.pipeline.stages.activations import CAPTION, Encoded
from cad_exp.pipeline.stages.labelled_images import LabelledImages
from cad_exp.pipeline.stages.model import Model
from cad_exp.pipeline.stages.shards import Shards

if TYPE_CHECKING:
    import numpy as np

    from cad_exp.pipeline.runtime import Runtime
    from cad_exp.representations.tokens import Tokens

FILE, INDEX, IMAGES = "tokens.safetensors", "index.parquet", "images.npy"


@dataclass(frozen=True, eq=False)
class _TokensNode(Stage[Shards]):
    """Tokens of a batch of images. positions: of each step; a number, `mean` or `all`."""

    folder: ClassVar[str] = "tokens"
    model: Model
    images: LabelledImages
    hookpoints: tuple[str, ...]
    positions: int | str
    seed: int

    @property
    def numbers(self) -> range:
        """The images' numbers."""
        return range(self.images.first, self.images.first + self.images.count)

    def load(self, runtime: Runtime, folder: Path) -> Shards:
        """Return where the tokens are."""
        return Shards.of(folder / FILE)

    def pictures(self, runtime: Runtime) -> np.ndarray:
        """Return the images (images, H, W, 3) uint8 in which the tokens were read."""
        return runtime.get(self.images).images

    def _write(self, folder: Path, found: Tokens, labels: dict[str, list[int]]) -> None:
        import pandas as pd

        Shards.write(folder / FILE, found.values)
        index = []
        for name, t in found.t.items():
            rows = len(self.numbers) * len(t)
            columns = {"hookpoint": [name] * rows, "image": [n for n in self.numbers for _ in range(len(t))]}
            columns |= {label: [each for each in classes for _ in range(len(t))] for label, classes in labels.items()}
            columns |= {"t": t.repeat(len(self.numbers)).tolist(), "position": found.positions[name].flatten().tolist()}
            index.append(pd.DataFrame(columns))
        pd.concat(index, ignore_index=True).astype({"hookpoint": "category"}).to_parquet(folder / INDEX)


@dataclass(frozen=True, eq=False)
class WalkedTokens(_TokensNode):
    """Tokens on guided trajectories, one for each image's caption; see `representations.tokens.walked`."""

    steps: int
    guidance: float
    base_prompt: str

    @property
    def work(self) -> int:
        """Steps of all trajectories."""
        return self.images.count * self.steps

    def pictures(self, runtime: Runtime) -> np.ndarray:
        """Return the images at the end of the trajectories, (images, H, W, 3) uint8."""
        import numpy as np

        runtime.all([self], "tokens")
        found: np.ndarray = np.load(runtime.place(self) / IMAGES, allow_pickle=False)
        return found

    def make(self, runtime: Runtime, folder: Path, tick: Tick) -> None:
        """Walk the captions, and keep the images at their end."""
        import numpy as np

        from cad_exp.representations.hookpoints import choose_hookpoints
        from cad_exp.representations.tokens import Walking, walked

        model, labelled = runtime.get(self.model), runtime.get(self.images)
        places = choose_hookpoints(model, self.hookpoints)
        walking = Walking(self.steps, self.guidance, self.base_prompt, self.seed)
        found = walked(model, labelled.captions, self.numbers, places, walking, self.positions, tick)
        assert found.latents is not None
        pixels = model.decode(found.latents).movedim(1, -1)
        np.save(folder / IMAGES, (pixels * 255).round().byte().cpu().numpy())
        self._write(folder, found, {name: each.tolist() for name, each in labelled.labels.items()})


@dataclass(frozen=True, eq=False)
class NoisedTokens(_TokensNode):
    """Tokens of noised images; see `representations.tokens.noised`. prompt: as of activations."""

    timesteps: tuple[int, ...]
    draws: int
    prompt: str
    batch_size: int

    @property
    def work(self) -> int:
        """Rows of all forward passes."""
        return self.images.count * len(self.timesteps) * self.draws

    def make(self, runtime: Runtime, folder: Path, tick: Tick) -> None:
        """Noise the images and read the hookpoints."""
        from cad_exp.representations.activations import Noising
        from cad_exp.representations.hookpoints import choose_hookpoints
        from cad_exp.representations.tokens import noised

        model, labelled = runtime.get(self.model), runtime.get(self.images)
        places, latents = choose_hookpoints(model, self.hookpoints), runtime.get(Encoded(self.model, self.images))
        prompts = labelled.captions if self.prompt == CAPTION else [self.prompt]
        noising = Noising(self.timesteps, self.draws, self.seed)
        how = (noising, prompts, self.positions, self.batch_size, tick)
        found = noised(model, latents, self.numbers, places, *how)
        self._write(folder, found, {name: each.tolist() for name, each in labelled.labels.items()})


AnyTokens = WalkedTokens | NoisedTokens
