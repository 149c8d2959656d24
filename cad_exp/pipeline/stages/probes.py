"""The probe map: what a linear probe reads at every hookpoint and timestep, beside what it must beat."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from cad_exp.evaluation.variants import COMPONENTS, LATENT, NETWORK, PIXELS, UNTRAINED
from cad_exp.pipeline.stage import Stage, Tick
from cad_exp.pipeline.stages.activations import Activations
from cad_exp.pipeline.stages.labelled_images import LabelledImages
from cad_exp.utils.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from cad_exp.evaluation.intervals.labels import Shares
    from cad_exp.pipeline.runtime import Runtime

FILE = "probes.parquet"
KEPT = 64  # of the pixels' principal components


@dataclass(frozen=True, eq=False)
class ProbeMap(Stage["pd.DataFrame"]):
    """Balanced accuracy of a probe for every label, hookpoint and timestep, and of its rivals on the same test images.

    trained, untrained: activations of the same images in parts; of the network, and of one with random weights (empty:
    not asked). seed: of the split. balanced: whether classes weigh alike in the fit.
    """

    folder: ClassVar[str] = "probes"
    trained: tuple[Activations, ...]
    untrained: tuple[Activations, ...]
    images: tuple[LabelledImages, ...]
    seed: int
    balanced: bool

    @property
    def work(self) -> int:
        """Number of sets of features: an upper bound is known only once the network is."""
        return 1

    def make(self, runtime: Runtime, folder: Path, tick: Tick) -> None:
        """Fit all probes and write one table."""
        _Map(self, runtime).table(tick).to_parquet(folder / FILE)

    def load(self, runtime: Runtime, folder: Path) -> pd.DataFrame:
        """Read the table."""
        import pandas as pd

        return pd.read_parquet(folder / FILE)


@dataclass(frozen=True)
class Row:
    """One row of the table.

    label: what is read. source: one of variants.SOURCES. hookpoint, t: where and when; "" and -1 for pixels.
    accuracy, low, high: balanced, on test images. gain, gain_low, gain_high: over the noisy latent at the same t.
    validation: the accuracy by which sites are chosen. strength: of the ridge penalty. n: test images.
    """

    label: str
    source: str
    hookpoint: str
    order: int
    t: int
    classes: int
    chance: float
    accuracy: float
    low: float
    high: float
    gain: float
    gain_low: float
    gain_high: float
    validation: float
    strength: float
    n: int


class _Map:
    """The work of a ProbeMap."""

    def __init__(self, stage: ProbeMap, runtime: Runtime):
        import numpy as np

        from cad_exp.representations.probes.linear import split_images

        self.stage, self.runtime = stage, runtime
        labelled = [runtime.get(part) for part in stage.images]
        self.pixels = np.concatenate([each.images for each in labelled])
        self.labels = {name: np.concatenate([each.labels[name] for each in labelled]) for name in labelled[0].labels}
        self.split = split_images(len(self.pixels), stage.seed)
        self.timesteps = stage.trained[0].timesteps
        self.latents: dict[tuple[str, int], Shares] = {}  # what is read from the noisy latent, by label and t

    def table(self, tick: Tick) -> pd.DataFrame:
        import pandas as pd

        rows = [row for number, each in enumerate(self._features(tick)) for row in self._rows(number, *each)]
        if not rows:
            raise UserError(
                f"{len(self.pixels)} images are too few to read a label from: training, validation and test images "
                "must share two classes, so raise images.number"
            )
        return pd.DataFrame([vars(row) for row in rows], columns=[each.name for each in fields(Row)])

    def _features(self, tick: Tick) -> Iterator[tuple[str, str, int, np.ndarray]]:
        """Yield (source, hookpoint, t, features (N, F)); the noisy latents of all timesteps first."""
        from cad_exp.representations.hookpoints import NOISY_LATENT
        from cad_exp.representations.probes import maps

        trained = self._joined(self.stage.trained)
        asked = [(LATENT, NOISY_LATENT, trained)]
        asked += [(NETWORK, name, trained) for name in trained if name != NOISY_LATENT]
        if self.stage.untrained:
            other = self._joined(self.stage.untrained)
            asked += [(UNTRAINED, name, other) for name in other if name != NOISY_LATENT]
        total = len(asked) + 2
        for done, (source, name, found) in enumerate(asked):
            for number, t in enumerate(self.timesteps):
                yield source, name, t, found[name][:, number]
            tick(done + 1, total)
        flat = maps.pixels(self.pixels)
        yield PIXELS, "", -1, flat
        yield COMPONENTS, "", -1, maps.principal(flat, self.split.train, KEPT)
        tick(total, total)

    def _joined(self, parts: tuple[Activations, ...]) -> dict[str, np.ndarray]:
        """Activations (images, timesteps, features) by hookpoint, averaged over draws."""
        import torch

        found = self.runtime.all(parts, parts[0].what)
        return {name: torch.cat([part[name].mean(2) for part in found]).numpy() for name in found[0]}

    def _rows(self, order: int, source: str, hookpoint: str, t: int, features: np.ndarray) -> Iterator[Row]:
        from cad_exp.evaluation.intervals.estimate import estimated
        from cad_exp.evaluation.probing import shares
        from cad_exp.representations.probes.maps import readings

        for read in readings(features, self.labels, self.split, self.stage.balanced):
            estimate = shares(read.right, read.classes)
            if source == LATENT:
                self.latents[read.label, t] = estimate
            rival = self.latents.get((read.label, t))
            gain = (None,) * 3 if rival is None or source == LATENT else estimate.change(rival)
            yield Row(
                label=read.label,
                source=source,
                hookpoint=hookpoint,
                order=order,
                t=t,
                classes=read.number_of_classes,
                chance=1 / read.number_of_classes,
                **_named("", ("accuracy", "low", "high"), estimated(estimate)),
                **_named("gain", ("", "_low", "_high"), gain),
                validation=read.probe.validation,
                strength=read.probe.strength,
                n=len(read.right),
            )


def _named(head: str, names: tuple[str, str, str], found: tuple[float | None, ...]) -> dict[str, Any]:
    """Values under their names, NaN in the place of nothing."""
    return {head + name: float("nan") if value is None else value for name, value in zip(names, found, strict=True)}
