"""What sparse features are worth: autoencoders and the dictionaries that they must beat, measured alike."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from cad_exp.evaluation.variants import AUTOENCODER, CHANNELS, FROZEN, PRINCIPAL, RANDOM
from cad_exp.pipeline.stage import Stage, Tick
from cad_exp.pipeline.stages.activations import Encoded
from cad_exp.pipeline.stages.autoencoders import Everywhere, Trained
from cad_exp.pipeline.stages.cells import Cell, cells
from cad_exp.pipeline.stages.shards import Shards
from cad_exp.pipeline.stages.tokens import AnyTokens
from cad_exp.pipeline.stages.widths import COMPARED, Wide, compared

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    import torch
    from scipy.sparse import csr_matrix

    from cad_exp.evaluation.reconstruction import Reconstructed
    from cad_exp.pipeline.runtime import Runtime
    from cad_exp.representations.probes.base import Split
    from cad_exp.representations.sae.autoencoder import Dictionary
    from cad_exp.representations.sae.measures import Fit
    from cad_exp.representations.sae.moments import Moments

METRICS, CODES = "metrics.json", "codes"
SPLICED = 60  # test images at most, on which the denoiser's own loss is measured
TIMES = (1, 100, 300, 500, 700)


@dataclass(frozen=True)
class Measured:
    """The metrics of all dictionaries, and where the codes of the images lie: hookpoint -> folder."""

    metrics: list[dict[str, Any]]
    folder: Path

    def codes(self, place: int, variant: str) -> csr_matrix:
        """Return how strongly the latents of a dictionary act in each image (images, width), training images first.

        place: the number of hookpoint, k and width, in the order of the metrics.
        """
        from scipy.sparse import load_npz

        return load_npz(self.folder / CODES / f"{place}-{variant.replace(' ', '_')}.npz").tocsr()


@dataclass(frozen=True, eq=False)
class Features(Stage[Measured]):
    """Measures of every autoencoder and its controls. choice, test: tokens of other images than those of training."""

    folder: ClassVar[str] = "features"
    autoencoders: Everywhere
    choice: tuple[AnyTokens, ...]
    test: tuple[AnyTokens, ...]
    controls: bool
    seed: int

    @cached_property
    def encoded(self) -> Encoded:
        """The clean latents of the first test images, one node for all cells."""
        return Encoded(self.test[0].model, self.test[0].images)

    def make(self, runtime: Runtime, folder: Path, tick: Tick) -> None:
        """Measure every dictionary of every hookpoint."""
        (folder / CODES).mkdir()
        metrics: list[dict[str, Any]] = []
        every, groups = cells(runtime, self.autoencoders), dict[tuple[str, int], list[Wide]]()
        for place, cell in enumerate(every):
            measured = _Cell(self, runtime, cell)
            metrics += [{**each, "name": each["name"] + cell.suffix} for each in measured.metrics()]
            measured.save(folder / CODES, place)
            group = groups.setdefault((cell.own.hookpoint, cell.plan.k), [])
            if len(cell.own.widths) > 1:
                group.append(measured.wide(cell.suffix))
            if len(group) == len(cell.own.widths) > 1:
                metrics += compared(group, measured.means(), *measured.labels())
                group.clear()
            tick(place + 1, len(every))
        (folder / METRICS).write_text(json.dumps(metrics), encoding="utf-8")

    def load(self, runtime: Runtime, folder: Path) -> Measured:
        """Read the metrics."""
        return Measured(json.loads((folder / METRICS).read_text(encoding="utf-8")), folder)


class _Cell:
    """One hookpoint, k and width: the autoencoders of all seeds, and their controls."""

    def __init__(self, stage: Features, runtime: Runtime, cell: Cell):
        self.stage, self.runtime, self.own, self.plan, self.trained = stage, runtime, cell.own, cell.plan, cell.trained
        parts = {"train": cell.own.tokens, "validation": stage.choice, "test": stage.test}
        self.parts = {name: runtime.all(each, "tokens") for name, each in parts.items()}
        self.moments: Moments = cell.own.moments(runtime)
        self.seeds = {each.plan.seed: each for each in cell.trained if not each.plan.frozen}
        self.dictionaries: dict[str, Dictionary] = {AUTOENCODER: cell.first.autoencoder, **self._controls(cell.first)}
        self.fits = {name: self._fit(each) for name, each in self.dictionaries.items()}
        self.pooled = {name: self._pooled(name) for name in self.dictionaries}

    def metrics(self) -> Iterator[dict[str, Any]]:
        """Yield the metrics of all dictionaries: of the reconstruction, then of what latents say of labels."""
        from cad_exp.evaluation import reconstruction
        from cad_exp.evaluation.monosemanticity import metrics as monosemanticity

        losses = self._losses()
        found = {name: _reconstructed(fit, losses.get(name)) for name, fit in self.fits.items()}
        labels, split = self.labels()
        said = {name: monosemanticity.measure(codes, labels, split) for name, codes in self.pooled.items()}
        for name in self.dictionaries:
            facts = self._facts(name)
            yield from reconstruction.metrics(name, found[name], found, facts)
            for metric in monosemanticity.metrics(name, said[name], said):
                yield {**metric, "definition": metric["definition"] | facts}
        yield from self._between_seeds()

    def wide(self, suffix: str) -> Wide:
        """Return what another width is compared with."""
        kept: dict[str, Any] = {name: self.dictionaries[name] for name in COMPARED if name in self.dictionaries}
        decoders = {name: each.W_dec.numpy() for name, each in kept.items()}
        codes, alive = {name: self.pooled[name] for name in kept}, self.fits[AUTOENCODER].acting > 0
        facts = self._facts(AUTOENCODER)
        return Wide(facts["width"], codes, decoders, alive, facts, suffix)

    def means(self) -> np.ndarray:
        """Return the images' activations (images, d), averaged over tokens, in the order of the codes."""
        import numpy as np

        parts = [self._tokens(part).mean(1).numpy() for group in self.parts.values() for part in group]
        found: np.ndarray = np.concatenate(parts)
        return found

    def save(self, folder: Path, place: int) -> None:
        """Keep the codes of the images, for pictures."""
        from scipy.sparse import save_npz

        for name, codes in self.pooled.items():
            save_npz(folder / f"{place}-{name.replace(' ', '_')}.npz", codes)

    def _controls(self, first: Trained) -> dict[str, Dictionary]:
        from cad_exp.representations.sae.controls import Components, RandomDictionary

        if not self.stage.controls:
            return {}
        k, width = self.plan.k, first.autoencoder.width
        frozen: list[tuple[str, Dictionary]] = [(FROZEN, each.autoencoder) for each in self.trained if each.plan.frozen]
        samples = [self._tokens(self.parts["train"][0]).flatten(0, 1)]
        drawn = RandomDictionary.fitted(width, k, self.stage.seed, self.moments, samples)
        principal = Components.principal(self.moments, k)
        return {**dict(frozen), RANDOM: drawn, PRINCIPAL: principal, CHANNELS: Components.channels(self.moments, k)}

    def _tokens(self, part: Shards) -> torch.Tensor:
        return part.tensor(self.own.hookpoint)

    @cached_property
    def mean(self) -> torch.Tensor:
        """The mean of the test tokens, around which their variance is."""
        from cad_exp.representations.sae.moments import Moments

        return Moments(self._tokens(part).flatten(0, 1) for part in self.parts["test"]).mean.float()

    def _fit(self, dictionary: Dictionary) -> Fit:
        from cad_exp.representations.sae.measures import measure

        return measure(dictionary, map(self._tokens, self.parts["test"]), self.mean)

    def _pooled(self, name: str) -> csr_matrix:
        """How strongly each latent acts in each image, training, validation and test images in this order."""
        from scipy.sparse import vstack

        from cad_exp.representations.sae.measures import measure

        seen = map(self._tokens, [*self.parts["train"], *self.parts["validation"]])
        return vstack([measure(self.dictionaries[name], seen, self.mean).pooled, self.fits[name].pooled]).tocsr()

    def _losses(self) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Return the denoiser's loss by image: under each dictionary, untouched, with the mean in its place."""
        from cad_exp.representations.activations import Noising
        from cad_exp.representations.hookpoints import choose_hookpoints
        from cad_exp.representations.sae import splice

        stage, runtime = self.stage, self.runtime
        model, first = runtime.get(stage.test[0].model), stage.test[0].images
        hookpoint = choose_hookpoints(model, [self.own.hookpoint])[0]
        if hookpoint.tap is None:
            return {}
        changes = {name: splice.reconstruction(each) for name, each in self.dictionaries.items()}
        changes |= {"intact": lambda x: x, "mean": splice.ablation(self.moments.mean)}
        latents = runtime.get(stage.encoded)[:SPLICED]
        numbers = list(stage.test[0].numbers)[: len(latents)]
        captions = runtime.get(first).captions[: len(latents)]
        noising = Noising(TIMES, 1, stage.seed)
        found = splice.losses(model, latents, numbers, captions, noising, hookpoint, changes)
        return {name: (found[name], found["intact"], found["mean"]) for name in self.dictionaries}

    def labels(self) -> tuple[dict[str, np.ndarray], Split]:
        """Return the classes (images,) of every label, and the split of the images, in the order of the codes."""
        import numpy as np

        from cad_exp.representations.probes.base import Split

        stages = [*self.own.tokens, *self.stage.choice, *self.stage.test]
        labelled = [self.runtime.get(each.images) for each in stages]
        labels = {name: np.concatenate([each.labels[name] for each in labelled]) for name in labelled[0].labels}
        sizes = [sum(each.images.count for each in group) for group in (self.own.tokens, self.stage.choice)]
        rows = np.arange(sum(each.images.count for each in stages))
        return labels, Split(*np.split(rows, np.cumsum(sizes)))

    def _facts(self, name: str) -> dict[str, Any]:
        facts = {"hookpoint": self.own.hookpoint, "k": self.plan.k, "width": self.dictionaries[name].width}
        return facts | {"effective_rank": round(self.moments.effective_rank, 2)}

    def _between_seeds(self) -> Iterator[dict[str, Any]]:
        from cad_exp.evaluation.monosemanticity.matching import shared
        from cad_exp.evaluation.monosemanticity.widths import shared_metrics

        seeds = [self.seeds[seed].autoencoder for seed in sorted(self.seeds)]
        if len(seeds) > 1:
            found = shared(seeds[0].W_dec.numpy(), seeds[1].W_dec.numpy())
            for metric in shared_metrics(AUTOENCODER, "another seed", found):
                yield {**metric, "definition": metric["definition"] | self._facts(AUTOENCODER)}
            values = [self.fits[AUTOENCODER].fvu, *(self._fit(each).fvu for each in seeds[1:])]
            yield {
                "name": "fvu_seeds",
                "variant": AUTOENCODER,
                "value": sum(values) / len(values),
                "low": min(values),
                "high": max(values),
                "n": len(values),
                "higher_is_better": False,
                "definition": {
                    "what": "mean FVU over seeds",
                    "interval": "lowest to highest",
                    **self._facts(AUTOENCODER),
                },
                "changes": {},
            }


def _reconstructed(fit: Fit, losses: tuple[np.ndarray, np.ndarray, np.ndarray] | None) -> Reconstructed:
    from cad_exp.evaluation.reconstruction import Reconstructed

    return Reconstructed(fit.errors, fit.variances, fit.cosines, fit.l0, fit.dead, len(fit.acting), losses)
