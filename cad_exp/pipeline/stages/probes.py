"""The probe map: what a probe reads at every hookpoint and timestep, beside what it must beat."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from cad_exp.evaluation.variants import COMPONENTS, ENCODER, FUSED, INPUTS, LATENT, NETWORK, PIXELS, UNTRAINED
from cad_exp.pipeline.stage import Chosen, Stage, Tick
from cad_exp.pipeline.stages.activations import Activations
from cad_exp.pipeline.stages.image_features import ImageFeatures
from cad_exp.pipeline.stages.labelled_images import LabelledImages
from cad_exp.representations import NOISY_LATENT
from cad_exp.representations.probes.base import GRID
from cad_exp.representations.probes.registry import PROBES
from cad_exp.utils.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from cad_exp.evaluation.intervals.labels import Shares
    from cad_exp.pipeline.runtime import Runtime
    from cad_exp.representations.probes.base import Probe
    from cad_exp.representations.probes.maps import Reading

FILE = "probes.parquet"
KEPT = 64  # of the pixels' principal components


@dataclass(frozen=True, eq=False)
class ProbeMap(Stage["pd.DataFrame"]):
    """Balanced accuracy of a probe for every label, hookpoint and timestep, and of its rivals on the same test images.

    trained, untrained: activations of the same images in parts; of the network, and of one with random weights (empty:
    not asked). encoded: their features by the image tower of a CLIP, if there is one. probe: the classifier. seed: of
    the split and of the fit. balanced: whether classes weigh alike in the fit. imbalance: half of the classes keep 1 of
    so many training images. fused: the number of best places and timesteps that are read together.
    """

    folder: ClassVar[str] = "probes"
    trained: tuple[Activations, ...]
    untrained: tuple[Activations, ...]
    encoded: tuple[ImageFeatures, ...]
    images: tuple[LabelledImages, ...]
    probe: Chosen
    seed: int
    balanced: bool
    imbalance: int = 1
    fused: int | None = None

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

    label: what is read. source: one of variants.SOURCES. hookpoint, t: where and when; t is -1 where there is no one
    timestep, and the hookpoint "" for images. accuracy, low, high: balanced, on test images. gain, gain_low, gain_high:
    over the noisy latent at the same t. validation: the accuracy by which sites are chosen. strength: of the ridge
    penalty or weight decay. n: test images.
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

        from cad_exp.representations.probes.base import split_images
        from cad_exp.representations.probes.maps import Fit

        self.stage, self.runtime = stage, runtime
        labelled = [runtime.get(part) for part in stage.images]
        self.pixels = np.concatenate([each.images for each in labelled])
        self.labels = {name: np.concatenate([each.labels[name] for each in labelled]) for name in labelled[0].labels}
        self.split = split_images(len(self.pixels), stage.seed)
        self.timesteps = stage.trained[0].timesteps
        self.probe = PROBES.make(stage.probe.settings)
        self.how = Fit(stage.balanced, stage.imbalance, stage.seed, str(runtime.device))
        self.latents: dict[tuple[str, int], Shares] = {}  # what is read from the noisy latent, by label and t

    def table(self, tick: Tick) -> pd.DataFrame:
        import pandas as pd

        rows = [
            row
            for number, (source, name, t, features) in enumerate(self._features(tick))
            for row in self._rows((number, source, name, t), self.probe, features, self.labels)
        ]
        if not rows:
            raise UserError(
                f"{len(self.pixels)} images are too few to read a label from: training, validation and test images "
                "must share two classes, so raise images.number"
            )
        rows += self._fused(rows) if self.stage.fused else []
        return pd.DataFrame([vars(row) for row in rows], columns=[each.name for each in fields(Row)])

    def _features(self, tick: Tick) -> Iterator[tuple[str, str, int, np.ndarray]]:
        """Yield (source, hookpoint, t, features (N, ...)); the noisy latents of all timesteps first."""
        trained, untrained = self.stage.trained, self.stage.untrained
        asked = [(LATENT, NOISY_LATENT, trained)]
        for source, parts in ((NETWORK, trained), (UNTRAINED, untrained)):
            names = self.runtime.all(parts, parts[0].what)[0].hookpoints if parts else ()
            asked += [(source, name, parts) for name in names if name != NOISY_LATENT]
        total = len(asked) + 1
        for done, (source, name, parts) in enumerate(asked):
            for t in self.timesteps:
                yield source, name, t, self._read(parts, name, t)
            tick(done + 1, total)
        for source, features in self._of_images():
            yield source, "", -1, features
        tick(total, total)

    def _of_images(self) -> Iterator[tuple[str, np.ndarray]]:
        """Yield (source, features (N, ...)) of what reads the clean images; a main direction has no positions."""
        import torch

        from cad_exp.representations.probes import maps

        if self.stage.encoded:
            yield ENCODER, torch.cat(self.runtime.all(self.stage.encoded, self.stage.encoded[0].what)).numpy()
        grid = maps.pixels(self.pixels)
        flat = grid.reshape(len(grid), -1)
        if self.probe.wants == GRID:
            yield PIXELS, grid
        else:
            yield PIXELS, flat
            yield COMPONENTS, maps.principal(flat, self.split.train, KEPT)

    def _read(self, parts: tuple[Activations, ...], hookpoint: str, t: int) -> np.ndarray:
        """Activations (images, ...) of one hookpoint at one timestep, averaged over draws: no more is in memory."""
        import torch

        number = self.timesteps.index(t)
        found = self.runtime.all(parts, parts[0].what)
        return torch.cat([part.column(hookpoint, number).mean(1) for part in found]).numpy()

    def _rows(
        self, place: tuple[int, str, str, int], probe: Probe, features: np.ndarray, labels: dict[str, np.ndarray]
    ) -> Iterator[Row]:
        """Yield a row for each label. place: order, source, hookpoint and t."""
        from cad_exp.evaluation.intervals.estimate import estimated
        from cad_exp.evaluation.probing import shares

        order, source, hookpoint, t = place
        for read in self._readings(source, probe, features, labels):
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

    def _readings(
        self, source: str, probe: Probe, features: np.ndarray, labels: dict[str, np.ndarray]
    ) -> Iterator[Reading]:
        """Yield what the probe reads; of INPUTS the better of what it and a linear probe read, by validation images.

        A probe that averages positions finds nearly nothing in a map of few features: over such a rival all would gain.
        """
        from cad_exp.representations.probes.linear import LinearProbe
        from cad_exp.representations.probes.maps import readings

        found = readings(features, labels, self.split, probe, self.how)
        if source not in INPUTS or isinstance(probe, LinearProbe):
            yield from found
            return
        flat = features.reshape(len(features), -1)
        plain = readings(flat, labels, self.split, LinearProbe(), self.how)
        for pair in zip(found, plain, strict=True):
            yield max(pair, key=lambda read: read.probe.validation)

    def _fused(self, rows: list[Row]) -> Iterator[Row]:
        """Yield for each label what a linear probe reads from its best places and timesteps together."""
        import numpy as np

        from cad_exp.representations.probes.linear import LinearProbe

        for label in dict.fromkeys(row.label for row in rows):
            own = [row for row in rows if row.label == label and row.source == NETWORK]
            best = sorted(own, key=lambda row: -row.validation)[: self.stage.fused]
            parts = [self._read(self.stage.trained, row.hookpoint, row.t) for row in best]
            features = np.concatenate([part if part.ndim == 2 else part.mean(1) for part in parts], 1)
            words = ", ".join(f"{row.hookpoint} at t = {row.t}" for row in best)
            place = (len(rows), FUSED, words, -1)
            yield from self._rows(place, LinearProbe(), features, {label: self.labels[label]})


def _named(head: str, names: tuple[str, str, str], found: tuple[float | None, ...]) -> dict[str, Any]:
    """Values under their names, NaN in the place of nothing."""
    return {head + name: float("nan") if value is None else value for name, value in zip(names, found, strict=True)}
