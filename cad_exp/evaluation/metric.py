"""What a metric is: a class that turns records of images, and the images themselves, into numbers with intervals."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from cad_exp.evaluation.intervals.images import Mean
from cad_exp.evaluation.measured import compared
from cad_exp.evaluation.records import Records

Metrics = Iterator[dict[str, Any]]


class Metric:
    """One name of `evaluation.metrics`; `measure` may give several numbers.

    looks_at: of which images it speaks, "concept" or "retention". asks: what it needs of the judge
    (data/metric_registry.py).
    """

    name: str
    looks_at: tuple[str, ...] = ("concept",)
    asks: tuple[str, ...] = ()

    def measure(self, records: Records, settings: dict[str, Any]) -> Metrics:
        """Yield numbers as `measured.compared` makes them. settings: the group `evaluation` of the config."""
        raise NotImplementedError


class ImageMetric(Metric):
    """A metric that is the mean of one number per image; it asks no judge.

    what: the number in words. higher_is_better: None where neither is.
    """

    what: str
    higher_is_better: bool | None = None

    def value(self, image: np.ndarray) -> float:
        """Return the number of one image, uint8 (H, W, 3)."""
        raise NotImplementedError

    def measure(self, records: Records, settings: dict[str, Any]) -> Metrics:
        """Yield the mean of the number of all images, for every variant."""
        samples = {
            variant: (Mean(self._values(records, rows)), rows)
            for variant in records.variants
            if len(rows := records.rows(variant, self.looks_at[0]))
        }
        yield from compared(self.name, samples, self.higher_is_better, {"judge": "pixels", "what": self.what})

    def _values(self, records: Records, rows: pd.DataFrame) -> np.ndarray:
        return np.array([self.value(image) for image in records.images(rows)], dtype=float)
