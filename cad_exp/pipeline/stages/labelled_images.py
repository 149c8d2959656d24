"""Labelled images, read or drawn in parts, from which probes and sparse features learn."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from cad_exp.data.labelled import SOURCES, Labelled, Source, source_settings
from cad_exp.models.sources import MODELS
from cad_exp.pipeline.stage import Chosen, Stage, Tick

if TYPE_CHECKING:
    from cad_exp.pipeline.runtime import Runtime

MASKS = "masks.npy"


@dataclass(frozen=True, eq=False)
class LabelledImages(Stage[Labelled]):
    """The images `first` to `first + count - 1` of a source, `size` pixels wide and high.

    A source that has an end is shuffled first (always alike), for folders and data sets are sorted by class.
    """

    folder: ClassVar[str] = "labelled_images"
    source: Chosen
    first: int
    count: int
    size: int

    @classmethod
    def choice(cls, settings: dict[str, Any], model: str) -> Chosen:
        """Return the source that the group `images` of a config chooses; a world is the model's own."""
        chosen = Chosen.of(SOURCES, source_settings(settings, model))
        if settings["name"] == "world" and model in MODELS:
            return Chosen(chosen.settings, (*chosen.modules, MODELS.where(model).module))
        return chosen

    @property
    def work(self) -> int:
        """Number of images."""
        return self.count

    def given(self) -> Source:
        """Return the source of the images."""
        found: Source = SOURCES.make(self.source.settings)
        return found

    def numbers(self) -> list[int]:
        """Return the numbers of the images in their source."""
        asked, total = range(self.first, self.first + self.count), self.given().count()
        if total is None:
            return list(asked)
        order = np.random.default_rng(0).permutation(total)
        return [int(order[number]) for number in asked]

    def requires(self) -> None:
        """Check that the source is there."""
        self.given().check()

    def inputs(self, runtime: Runtime) -> Any:
        """Return the fields, and the content of the source."""
        return super().inputs(runtime) | {"content": self.given().identity()}

    def make(self, runtime: Runtime, folder: Path, tick: Tick) -> None:
        """Read or draw the images."""
        made = self.given().read(self.numbers(), self.size)
        np.save(folder / "images.npy", made.images)
        if made.masks is not None:
            np.save(folder / MASKS, made.masks)
        content = {"labels": {name: each.tolist() for name, each in made.labels.items()}, "captions": made.captions}
        (folder / "labels.json").write_text(json.dumps(content), encoding="utf-8")
        tick(self.count, self.count)

    def load(self, runtime: Runtime, folder: Path) -> Labelled:
        """Read the images without a copy, and their labels and masks."""
        content = json.loads((folder / "labels.json").read_text(encoding="utf-8"))
        labels = {name: np.array(each, np.int64) for name, each in content["labels"].items()}
        images = np.load(folder / "images.npy", mmap_mode="c", allow_pickle=False)
        masks = np.load(folder / MASKS, allow_pickle=False) if (folder / MASKS).exists() else None
        return Labelled(images, labels, content["captions"], masks)
