"""A judge that knows two objects by their colour."""

from typing import Any

import numpy as np
import pandas as pd

from cad_exp.evaluation.judges.base import Judge


class ColourJudge(Judge):
    """Whatever is bright is a church, and everything else is a tench."""

    def __init__(self, bright: float = 100.0):
        self.bright = bright
        self.definition: dict[str, Any] = {"judge": "brightness", "bright": bright}
        self.definitions = {"object": self.definition}

    @classmethod
    def known(cls, kind: str) -> list[str] | None:
        return {"object": ["church", "tench"]}.get(kind)

    def labels(self, images: np.ndarray) -> tuple[pd.DataFrame, np.ndarray]:
        bright = images.mean((1, 2, 3)) > self.bright
        return pd.DataFrame({"object": np.where(bright, "church", "tench")}), np.zeros((len(images), 0), np.float32)
