"""The sources of labelled images: a drawn world, a folder, a data set of torchvision or of the hub."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cad_exp.data import image_folder
from cad_exp.data.labelled import UNKNOWN, Labelled, Source
from cad_exp.models.sources import MODELS
from cad_exp.utils.errors import UserError, choose
from cad_exp.utils.paths import resolve


class World(Source):
    """Drawings of the world that a model describes itself: as many as one wants, with exact labels.

    model: `model.path` of the config. seed: another one gives other drawings.
    """

    def __init__(self, model: str, seed: int = 0):
        known = [name for name in MODELS if getattr(MODELS.get(name), "drawn", None)]
        if model not in known:
            raise UserError(
                f"images=world needs a model that describes its own world, and model.path={model} does not: take "
                f"images=folder images.path=FOLDER, or model={' or model='.join(known)}"
            )
        self.world, self.seed = MODELS.get(model), int(seed)

    def classes(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = self.world.classes()
        return found

    def count(self) -> int | None:
        return None

    @property
    def masked(self) -> bool:
        return bool(getattr(self.world, "masks", False))

    def read(self, numbers: Sequence[int], size: int) -> Labelled:
        drawn: Labelled = self.world.drawn(numbers, self.seed)
        images = np.stack([_sized(image, size) for image in drawn.images])
        masks = (
            None
            if drawn.masks is None
            else np.stack([_sized(255 * mask.astype(np.uint8), size) > 127 for mask in drawn.masks])
        )
        return Labelled(images, drawn.labels, drawn.captions, masks)

    def identity(self) -> dict[str, Any]:
        return {"world": f"{self.world.__module__}:{self.world.__name__}", "seed": self.seed}


class Folder(Source):
    """A folder of images: each of its sub-folders is a class, and the label is called `class`."""

    def __init__(self, path: str):
        self.path = str(path)

    @cached_property
    def _files(self) -> list[tuple[Path, int]]:
        top = Path(resolve(self.path))
        names = self.classes()["class"]
        files = [file for file in image_folder.image_files(top) if file.parent != top]
        return [(file, names.index(file.relative_to(top).parts[0])) for file in files]

    @cached_property
    def _names(self) -> list[str]:
        top = Path(resolve(self.path))
        files = image_folder.image_files(top)
        return sorted({file.relative_to(top).parts[0] for file in files if file.parent != top})

    def classes(self) -> dict[str, list[str]]:
        return {"class": self._names}

    def count(self) -> int | None:
        return len(self._files)

    def check(self) -> None:
        image_folder.check_and_tell(self.path, "images.path", 3)
        if len(self._names) < 2:
            raise UserError(
                f"images.path: '{self.path}' needs at least two sub-folders with images, one for each class"
            )

    def read(self, numbers: Sequence[int], size: int) -> Labelled:
        chosen = [self._files[number] for number in numbers]
        images = np.stack([_sized(np.asarray(image_folder.read(file)), size) for file, _ in chosen])
        labels = np.array([label for _, label in chosen])
        return Labelled(images, {"class": labels}, [_caption(self._names[label]) for label in labels])

    def identity(self) -> dict[str, Any]:
        return {"folder": image_folder.images_digest(self.path, "images.path")}


class _Dataset(Source):
    """A data set with numbered items; the label is called `class`."""

    def _item(self, number: int) -> tuple[Any, int]:
        raise NotImplementedError

    def read(self, numbers: Sequence[int], size: int) -> Labelled:
        items = [self._item(int(number)) for number in numbers]
        images = np.stack([_sized(np.asarray(image.convert("RGB")), size) for image, _ in items])
        labels, names = np.array([label for _, label in items]), self.classes()["class"]
        return Labelled(images, {"class": labels}, [_caption(names[label]) for label in labels])


class Torchvision(_Dataset):
    """A data set of torchvision with one class an image, by its name: OxfordIIITPet, Caltech101.

    path: where its files lie, or where `download` puts them. split: as the data set calls it, if it has one.
    """

    def __init__(self, dataset: str, path: str, split: str | None = None, download: bool = False):
        self.dataset, self.path, self.split, self.download = str(dataset), str(path), split, bool(download)

    @cached_property
    def _data(self) -> Any:
        from torchvision import datasets

        known = [name for name in datasets.__all__ if name[0].isupper()]
        if self.dataset not in known:
            choose(self.dataset, known, "torchvision data set in images.dataset")
        cls = getattr(datasets, self.dataset)
        asked: dict[str, Any] = {} if self.split is None else {"split": self.split}
        asked |= {"download": self.download} if "download" in signature(cls).parameters else {}
        try:
            return cls(resolve(self.path), **asked)
        except (RuntimeError, OSError, TypeError, ValueError) as error:
            said = " ".join(str(error).split())[:200]
            raise UserError(
                f"images=torchvision: {self.dataset} cannot be read from '{self.path}' ({said}): put its files there, "
                "or let it load them with images.download=true"
            ) from error

    def classes(self) -> dict[str, list[str]]:
        names = getattr(self._data, "classes", None) or getattr(self._data, "categories", None)
        if not names:
            raise UserError(f"images=torchvision: {self.dataset} does not name its classes: take another data set")
        return {"class": [str(name) for name in names]}

    def count(self) -> int | None:
        return len(self._data)

    def _item(self, number: int) -> tuple[Any, int]:
        image, label = self._data[number]
        return image, int(label)

    def identity(self) -> dict[str, Any]:
        return {"torchvision": self.dataset, "split": self.split, "count": len(self._data)}


class Hub(_Dataset):
    """A data set of the hub with a column of images and one of classes; needs the package `datasets`.

    dataset: its id, "owner/name". split: train, test, ... image, label: names of the columns.
    """

    def __init__(self, dataset: str, split: str = "train", image: str = "image", label: str = "label"):
        self.dataset, self.split, self.columns = str(dataset), str(split), (str(image), str(label))

    @cached_property
    def _data(self) -> Any:
        try:
            from datasets import load_dataset
        except ImportError as error:
            raise UserError("images=hub needs the package 'datasets': pip install datasets") from error
        try:
            return load_dataset(self.dataset, split=self.split)
        except Exception as error:  # of many kinds: no network, no such data set, no such split
            said = " ".join(str(error).split())[:200]
            raise UserError(
                f"images=hub: '{self.dataset}' cannot be loaded ({said}): check its id and the network"
            ) from error

    def classes(self) -> dict[str, list[str]]:
        feature = self._data.features.get(self.columns[1])
        names = getattr(feature, "names", None)
        if not names:
            raise UserError(
                f"images=hub: column '{self.columns[1]}' of '{self.dataset}' names no classes: set images.label"
            )
        return {"class": [str(name) for name in names]}

    def count(self) -> int | None:
        return len(self._data)

    def _item(self, number: int) -> tuple[Any, int]:
        row = self._data[number]
        return row[self.columns[0]], int(row[self.columns[1]])

    def identity(self) -> dict[str, Any]:
        return {"hub": self.dataset, "split": self.split, "fingerprint": str(getattr(self._data, "_fingerprint", ""))}


def _sized(image: np.ndarray, size: int) -> np.ndarray:
    """Scale an image (H, W, 3) or (H, W) until its shorter side is `size`, and keep the middle."""
    if image.shape[:2] == (size, size):
        return image
    height, width = image.shape[:2]
    scale = size / min(height, width)
    scaled = Image.fromarray(image).resize((round(width * scale), round(height * scale)), Image.Resampling.LANCZOS)
    left, top = (scaled.width - size) // 2, (scaled.height - size) // 2
    return np.asarray(scaled.crop((left, top, left + size, top + size)))


def _caption(name: str) -> str:
    plain = name.replace("_", " ")
    return f"a photo of {'an' if plain[:1].lower() in 'aeiou' else 'a'} {plain}"


__all__ = ["UNKNOWN", "Folder", "Hub", "Torchvision", "World"]
