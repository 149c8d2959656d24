"""How well a dictionary reconstructs tokens of images that it has not seen: FVU, cosine, L0, dead latents, the loss.

Intervals are over images, for tokens of one image are alike. Dictionaries are measured on the same images, so changes
are paired.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from cad_exp.evaluation.intervals.estimate import estimated
from cad_exp.evaluation.intervals.formulas import Bounds, Interval

RESAMPLES, SEED = 1000, 0


@dataclass(frozen=True)
class Ratio:
    """A sum over images divided by another: `above` and `below` are (images,)."""

    above: np.ndarray
    below: np.ndarray
    words = f"95 % bootstrap over images, {RESAMPLES} resamples, percentiles"
    change_words = f"95 % paired bootstrap over the same images, {RESAMPLES} resamples, percentiles"

    @property
    def value(self) -> float:
        """The ratio of the sums."""
        return float(self.above.sum() / self.below.sum())

    @cached_property
    def drawn(self) -> np.ndarray:
        """The ratio of each resample, (RESAMPLES,); the same images are drawn for all ratios of as many images."""
        places = np.random.default_rng(SEED).integers(0, len(self.above), (RESAMPLES, len(self.above)))
        return np.asarray(self.above[places].sum(1) / self.below[places].sum(1))

    def interval(self) -> Bounds | None:
        """Return (low, high); None for one image."""
        return None if len(self.above) < 2 else _percentiles(self.drawn)

    def change(self, before: Ratio) -> Interval:
        """Return this ratio less another's on the same images, with its interval."""
        if len(self.above) < 2:
            return self.value - before.value, None, None
        return (self.value - before.value, *_percentiles(self.drawn - before.drawn))


@dataclass(frozen=True)
class Reconstructed:
    """What was measured of one dictionary on test images.

    errors, variances: (images,) sums of squares of tokens. cosines, l0: (images,) means. dead: share of latents. width.
    losses: (images,) the denoiser's with the reconstruction, and untouched, and with the mean in its place.
    """

    errors: np.ndarray
    variances: np.ndarray
    cosines: np.ndarray
    l0: np.ndarray
    dead: float
    width: int
    losses: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None

    def estimates(self) -> dict[str, Ratio]:
        """Return every measure that has an interval, by the name of its metric."""
        ones = np.ones(len(self.cosines))
        found = {
            "fvu": Ratio(self.errors, self.variances),
            "cosine": Ratio(self.cosines, ones),
            "l0": Ratio(self.l0, ones),
        }
        if self.losses is not None:
            spliced, intact, ablated = self.losses
            found["loss_recovered"] = Ratio(ablated - spliced, ablated - intact)
        return found


WHAT: dict[str, tuple[str, bool | None]] = {
    "fvu": ("fraction of variance unexplained: squared error over the tokens' variance around their mean", False),
    "cosine": ("cosine between a token and its reconstruction, both less the mean", True),
    "l0": ("latents that act on a token", None),
    "loss_recovered": (
        "share of the denoiser's prediction error, lost to the mean in place of the activation, that the "
        "reconstruction wins back",
        True,
    ),
}


def metrics(
    variant: str, found: Reconstructed, others: Mapping[str, Reconstructed], facts: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    """Yield what results.json holds of one dictionary: fvu, cosine, l0, loss_recovered, dead.

    Args:
        variant: the dictionary's name.
        found: what was measured of it.
        others: name -> the same of other dictionaries, with which it is compared.
        facts: of the dictionary and the place, for the definition.
    """
    rivals = {name: each.estimates() for name, each in others.items() if name != variant}
    for name, estimate in found.estimates().items():
        what, better = WHAT[name]
        changes = {other: estimate.change(each[name]) for other, each in rivals.items() if name in each}
        value, low, high = estimated(estimate)
        yield {
            "name": name,
            "variant": variant,
            "value": value,
            "low": low,
            "high": high,
            "n": len(estimate.below),
            "higher_is_better": better,
            "definition": {"what": what, **facts, "interval": estimate.words},
            "changes": {
                other: {"value": value, "low": low, "high": high, "interval": estimate.change_words}
                for other, (value, low, high) in changes.items()
            },
        }
    yield {
        "name": "dead",
        "variant": variant,
        "value": found.dead,
        "low": None,
        "high": None,
        "n": found.width,
        "higher_is_better": False,
        "definition": {"what": "share of latents that act on no token of the test images", **facts},
        "changes": {},
    }


def _percentiles(drawn: np.ndarray) -> Bounds:
    low, high = np.percentile(drawn, [2.5, 97.5])
    return float(low), float(high)
