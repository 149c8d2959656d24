"""A source of labelled images: stripes that stand or lie."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from cad_exp.data.labelled import Labelled, Source


class Stripes(Source):
    """As many images as one wants; the label is called `direction`."""

    def __init__(self, width: int = 4, seed: int = 0):
        self.width, self.seed = width, seed

    def classes(self) -> dict[str, list[str]]:
        return {"direction": ["standing", "lying"]}

    def count(self) -> int | None:
        return None

    def read(self, numbers: Sequence[int], size: int) -> Labelled:
        images = np.stack([self._drawn(number, size) for number in numbers])
        labels = np.array([number % 2 for number in numbers])
        return Labelled(images, {"direction": labels}, ["stripes"] * len(labels))

    def identity(self) -> dict[str, Any]:
        return {"stripes": self.width, "seed": self.seed}

    def _drawn(self, number: int, size: int) -> np.ndarray:
        rng = np.random.default_rng([self.seed, number])
        bright = (np.arange(size) + rng.integers(2 * self.width)) // self.width % 2
        image = np.tile(bright, (size, 1)) if number % 2 == 0 else np.tile(bright[:, None], (1, size))
        return (image[..., None] * rng.integers(100, 256, 3)).astype(np.uint8)
