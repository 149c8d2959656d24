"""Labelled images: what probes learn from. Every image has a class of each label, and a caption that is true of it.

Sources are chosen by name, as an estimator is: the world that a model describes itself, a folder with one sub-folder a
class, a data set of torchvision or of the hub. A source knows its images by number and gives any of them alone, so
batches can be made apart. Nothing here imports torch before images are read.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cad_exp.utils.registry import Registry

UNKNOWN = -1  # the class of an image to which a label does not apply

SOURCES = Registry(
    "images",
    {
        "world": "cad_exp.data.labelled_sources:World",
        "folder": "cad_exp.data.labelled_sources:Folder",
        "torchvision": "cad_exp.data.labelled_sources:Torchvision",
        "hub": "cad_exp.data.labelled_sources:Hub",
    },
)


def source_settings(images: dict[str, Any], model: str) -> dict[str, Any]:
    """Return the settings of the source that the group `images` of a config chooses; a world is the model's own."""
    own = {key: value for key, value in images.items() if key not in ("number", "size")}
    return own | ({"model": model} if images["name"] == "world" else {})


@dataclass(frozen=True)
class Labelled:
    """Images uint8 (N, H, W, 3), the class (N,) int of each under every label (UNKNOWN: none), and captions (N,).

    masks: where each image's object is, bool (N, H, W); None: nobody knows.
    """

    images: np.ndarray
    labels: dict[str, np.ndarray]
    captions: list[str]
    masks: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.images)


class Source(ABC):
    """Where labelled images come from."""

    @property
    def masked(self) -> bool:
        """Whether the images come with masks of their objects."""
        return False

    @abstractmethod
    def classes(self) -> dict[str, list[str]]:
        """Return the names of the classes of every label; their order gives the numbers."""

    @abstractmethod
    def count(self) -> int | None:
        """Return how many images there are; None where there is no end."""

    @abstractmethod
    def read(self, numbers: Sequence[int], size: int) -> Labelled:
        """Return some images by number, `size` pixels wide and high."""

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """Return all that the images depend on, as JSON-able content."""

    def check(self) -> None:
        """Check, without torch, that the images are there.

        Raises:
            UserError: something is missing, with how to get it.
        """
        self.classes()
