"""Images of the model, with and without an edit; folders of images that somebody gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from cad_exp.data.image_folder import check_and_tell, images_digest
from cad_exp.data.requests import ImageRequest, batches
from cad_exp.pipeline.stage import NO_KEY, Derived, Node, Stage, Tick
from cad_exp.pipeline.stages.model import Model

if TYPE_CHECKING:
    import numpy as np

    from cad_exp.interventions.edit import Edit
    from cad_exp.pipeline.runtime import Runtime


@dataclass(frozen=True, eq=False)
class Images(Stage[list[Path]]):
    """A batch of images that are made together, one for each prompt and seed.

    edit: what is changed in the model meanwhile; None: nothing. size: (height, width) in pixels; None: the model's.
    redacted: what becomes of them once they were judged: kept, blurred or dropped.
    """

    folder: ClassVar[str] = "images"
    model: Model
    edit: Node[Edit] | None
    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    steps: int
    guidance: float
    size: tuple[int, int] | None = None
    redacted: str = "kept"

    @property
    def work(self) -> int:
        """Steps of all images."""
        return len(self.seeds) * self.steps

    def make(self, runtime: Runtime, folder: Path, tick: Tick) -> None:
        """Generate the images as 0000.png, 0001.png and so on."""
        from cad_exp.utils import images

        model = runtime.get(self.model)
        with nullcontext() if self.edit is None else runtime.get(self.edit).apply(model):
            made = model.generate(
                list(self.prompts),
                seeds=list(self.seeds),
                steps=self.steps,
                guidance=self.guidance,
                batch_size=len(self.seeds),
                progress=tick,
                size=self.size,
            )
        images.save(folder, made)

    def load(self, runtime: Runtime, folder: Path) -> list[Path]:
        """Return the files, in the order of the prompts."""
        return [folder / f"{number:04d}.png" for number in range(len(self.seeds))]

    def pixels(self, runtime: Runtime) -> np.ndarray:
        """Return the images (N, H, W, 3) uint8 as they were made, whatever was kept of them."""
        from cad_exp.utils import images

        return runtime.whole(self, lambda folder: images.load(self.load(runtime, folder)))


@dataclass(frozen=True, eq=False)
class Pictures(Derived[list[Path]]):
    """All images of one variant, in the order of their requests."""

    parts: tuple[Images, ...]
    variant: str = field(default="", metadata=NO_KEY)
    origin: ClassVar[str] = "generated"

    @classmethod
    def of(
        cls,
        model: Model,
        edit: Node[Edit] | None,
        asked: Sequence[ImageRequest],
        size: int,
        variant: str,
        redact: Callable[[ImageRequest], str] | None = None,
    ) -> Pictures:
        """Return the images of these requests in batches of at most `size`; a request's own guidance and size count.

        redact: says of a request what becomes of its image (kept, blurred, dropped).
        """
        parts = []
        for batch in batches(list(asked), size):
            first = batch[0]
            parts.append(
                Images(
                    model,
                    edit,
                    tuple(each.prompt for each in batch),
                    tuple(each.seed for each in batch),
                    model.steps,
                    model.guidance if first.guidance is None else first.guidance,
                    first.size,
                    redact(first) if redact else "kept",
                )
            )
        return cls(tuple(parts), variant)

    def derive(self, runtime: Runtime) -> list[Path]:
        """Return all files, in the order of the requests."""
        return [file for files in runtime.all(self.parts, f"images, {self.variant}") for file in files]

    def pixels(self, runtime: Runtime, resolution: int) -> np.ndarray:
        """Return the images (N, H, W, 3) uint8; they have the model's resolution already."""
        import numpy as np

        return np.concatenate([part.pixels(runtime) for part in self.parts])

    def some(self, runtime: Runtime, numbers: Sequence[int]) -> np.ndarray:
        """Return those images (N, H, W, 3) uint8 of the requests with these numbers, which have one size."""
        import numpy as np

        places = [(part, row) for part in self.parts for row in range(len(part.seeds))]
        return np.stack([places[number][0].pixels(runtime)[places[number][1]] for number in numbers])


@dataclass(frozen=True, eq=False)
class GivenImages(Derived[Path]):
    """A folder of images; its content counts, not its name."""

    path: str
    key_name: str = field(default="noisy_latents.images", metadata=NO_KEY)
    least: int = field(default=1, metadata=NO_KEY)
    origin: ClassVar[str] = "given"

    def requires(self) -> None:
        """Check that the images are there and can be read."""
        check_and_tell(self.path, self.key_name, self.least)

    def inputs(self, runtime: Runtime) -> Any:
        """Return the digest of the images."""
        return images_digest(self.path, self.key_name)

    def derive(self, runtime: Runtime) -> Path:
        """Return the folder."""
        return Path(self.path)

    def pixels(self, runtime: Runtime, resolution: int) -> np.ndarray:
        """Return the images (N, resolution, resolution, 3) uint8."""
        from cad_exp.data.image_folder import load_folder

        return load_folder(self.path, resolution)
