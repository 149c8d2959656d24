"""What the judges say of images, and the features of the images that FID compares with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from cad_exp.pipeline.stage import Derived, Stage, Tick
from cad_exp.pipeline.stages.images import GivenImages, Images, Pictures
from cad_exp.pipeline.stages.judge import Judge

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from cad_exp.pipeline.runtime import Runtime


@dataclass(frozen=True, eq=False)
class Judgements(Stage["tuple[pd.DataFrame, np.ndarray]"]):
    """What a judge says of a batch of images; unedited: the intact model's images of the same prompts and seeds."""

    folder: ClassVar[str] = "judgements"
    judge: Judge
    images: Images
    unedited: Images

    def make(self, runtime: Runtime, folder: Path, tick: Tick) -> None:
        """Show the images to the judge; write one row per image, and their features."""
        from safetensors.numpy import save_file

        from cad_exp.evaluation.records import judge_batch

        shown = self.images.pixels(runtime)
        plain = shown if self.images is self.unedited else self.unedited.pixels(runtime)
        table, features = judge_batch(runtime.get(self.judge), list(self.images.prompts), shown, plain)
        table.to_parquet(folder / "judgements.parquet")
        save_file({"features": features}, str(folder / "features.safetensors"))

    def load(self, runtime: Runtime, folder: Path) -> tuple[pd.DataFrame, np.ndarray]:
        """Return the rows, and features (N, F)."""
        import pandas as pd

        return pd.read_parquet(folder / "judgements.parquet"), read_features(folder)


@dataclass(frozen=True, eq=False)
class Judged(Derived["tuple[pd.DataFrame, list[np.ndarray]]"]):
    """What a judge says of all images of a variant."""

    parts: tuple[Judgements, ...]
    variant: str

    @classmethod
    def of(cls, judge: Judge, images: Pictures, unedited: Pictures) -> Judged:
        """Return the judgements of these images, batch by batch."""
        pairs = zip(images.parts, unedited.parts, strict=True)
        return cls(tuple(Judgements(judge, *pair) for pair in pairs), images.variant)

    def derive(self, runtime: Runtime) -> tuple[pd.DataFrame, list[np.ndarray]]:
        """Return the rows in the order of the images, and the features batch by batch."""
        import pandas as pd

        found = runtime.all(self.parts, f"judgements, {self.variant}")
        return pd.concat([table for table, _ in found]), [features for _, features in found]


@dataclass(frozen=True, eq=False)
class Drawings(Stage["np.ndarray"]):
    """A judge's features of drawings that show what one retention prompt asks for."""

    folder: ClassVar[str] = "reference"
    judge: Judge
    kind: str
    label: str
    number: int
    seed: int

    def make(self, runtime: Runtime, folder: Path, tick: Tick) -> None:
        """Draw what the prompt asks for, and show the drawings to the judge."""
        from safetensors.numpy import save_file

        judge = runtime.get(self.judge)
        _, features = judge.labels(judge.drawings(self.kind, self.label, self.number, self.seed))
        save_file({"features": features}, str(folder / "features.safetensors"))

    def load(self, runtime: Runtime, folder: Path) -> np.ndarray:
        """Return features (number, F)."""
        return read_features(folder)


@dataclass(frozen=True, eq=False)
class FolderFeatures(Stage["np.ndarray"]):
    """A judge's features of a folder of images."""

    folder: ClassVar[str] = "reference"
    judge: Judge
    images: GivenImages

    def make(self, runtime: Runtime, folder: Path, tick: Tick) -> None:
        """Show the images to the judge."""
        from safetensors.numpy import save_file

        features = runtime.get(self.judge).folder_features(runtime.get(self.images))
        save_file({"features": features}, str(folder / "features.safetensors"))

    def load(self, runtime: Runtime, folder: Path) -> np.ndarray:
        """Return features (N, F)."""
        return read_features(folder)


def read_features(folder: Path) -> np.ndarray:
    """Return the features (N, F) that a stage left in its folder."""
    from safetensors.numpy import load_file

    return load_file(str(folder / "features.safetensors"))["features"]
