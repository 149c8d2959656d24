"""Held-out images as the latents of one autoencoder see them: how strongly, where and when each latent acts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from cad_exp.evaluation.variants import AUTOENCODER
from cad_exp.pipeline.runtime import Runtime
from cad_exp.pipeline.stages.cells import Cell, cells
from cad_exp.pipeline.stages.features import Features
from cad_exp.pipeline.stages.tokens import INDEX, AnyTokens

if TYPE_CHECKING:
    import torch

    from cad_exp.representations.sae.autoencoder import Autoencoder

TOP = 8  # images of a latent


class HeldOut:
    """The images of choices and of the test, under the first autoencoder of a cell.

    codes: (images, width), each latent's mean value in each image. labels: label -> class (images,), below 0 for none;
    names: label -> the names of its classes.
    """

    def __init__(self, runtime: Runtime, features: Features, place: int = 0):
        """place: the number of the cell, in the order of `cells`."""
        self.runtime, self.features = runtime, features
        self.cell: Cell = cells(runtime, features.autoencoders)[place]
        self.stages: tuple[AnyTokens, ...] = (*features.choice, *features.test)
        runtime.all(self.stages, "tokens")
        self.rows = [(stage, row) for stage in self.stages for row in range(stage.images.count)]
        codes = runtime.get(features).codes(place, AUTOENCODER)
        self.codes: np.ndarray = codes[-len(self.rows) :].toarray()
        labelled = [runtime.get(stage.images) for stage in self.stages]
        self.labels = {name: np.concatenate([each.labels[name] for each in labelled]) for name in labelled[0].labels}
        self.captions = [caption for each in labelled for caption in each.captions]
        self.names = self.stages[0].images.given().classes()

    @property
    def hookpoint(self) -> str:
        """The place of the activations."""
        return self.cell.own.hookpoint

    @property
    def autoencoder(self) -> Autoencoder:
        """The autoencoder whose latents are shown."""
        return self.cell.first.autoencoder

    def top(self, latent: int) -> np.ndarray:
        """Return the images (TOP,) in which a latent acts most, the strongest first."""
        return np.argsort(-self.codes[:, latent], kind="stable")[:TOP]

    def frequency(self, latent: int) -> float:
        """Return the share of images in which a latent acts."""
        return float((self.codes[:, latent] > 0).mean())

    def picture(self, image: int) -> np.ndarray:
        """Return an image (H, W, 3) uint8."""
        stage, row = self.rows[image]
        found: np.ndarray = stage.pictures(self.runtime)[row]
        return found

    def map(self, image: int, latent: int) -> np.ndarray:
        """Return the mean value of a latent at each position over steps: (side, side), NaN where none was read."""
        stage, row = self.rows[image]
        acts = self._acts(self._tokens(stage)[row], [latent])[:, 0]
        index = self._index[stage]
        where = np.maximum(index["position"].to_numpy()[row * len(acts) : (row + 1) * len(acts)], 0)
        side = int(np.ceil(np.sqrt(index["position"].max() + 1))) if index["position"].max() > 0 else 1
        sums, counts = np.zeros(side * side), np.zeros(side * side)
        np.add.at(sums, where, acts)
        np.add.at(counts, where, 1)
        return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan).reshape(side, side)

    def over_time(self, latents: Sequence[int]) -> tuple[list[int], np.ndarray]:
        """Return the timesteps, as they were read, and the mean values of latents there: (images, times, latents)."""
        first = self._index[self.stages[0]]
        each = first["t"].to_numpy()[: self._tokens(self.stages[0]).shape[1]]
        times = list(dict.fromkeys(each.tolist()))
        found = []
        for tokens in map(self._tokens, self.stages):
            acts = self._acts(tokens.flatten(0, 1), latents).reshape(len(tokens), len(each), len(latents))
            found.append(np.stack([acts[:, each == t].mean(1) for t in times], 1))
        return times, np.concatenate(found)

    def means(self) -> torch.Tensor:
        """Return the images' activations (images, d), averaged over tokens."""
        return _means(map(self._tokens, self.stages))

    def training(self) -> tuple[list[str], torch.Tensor]:
        """Return the captions of the training images, and their activations (images, d) averaged over tokens."""
        stages = self.cell.own.tokens
        captions = [caption for stage in stages for caption in self.runtime.get(stage.images).captions]
        return captions, _means(map(self._tokens, stages))

    def _tokens(self, stage: AnyTokens) -> torch.Tensor:
        return self.runtime.all([stage], "tokens")[0].tensor(self.hookpoint)

    @cached_property
    def _index(self) -> dict[AnyTokens, pd.DataFrame]:
        """The rows of the hookpoint in the index of each stage."""
        tables = {stage: pd.read_parquet(self.runtime.place(stage) / INDEX) for stage in self.stages}
        return {stage: table[table["hookpoint"] == self.hookpoint] for stage, table in tables.items()}

    def _acts(self, tokens: torch.Tensor, latents: Sequence[int]) -> np.ndarray:
        """Return the values (tokens, latents) of some latents."""
        autoencoder, chunk = self.autoencoder, 8192
        parts = [autoencoder.encode(tokens[i : i + chunk].float()) for i in range(0, len(tokens), chunk)]
        return np.concatenate([part.matrix(autoencoder.width)[:, list(latents)].toarray() for part in parts])


def _means(parts: Iterator[torch.Tensor]) -> torch.Tensor:
    import torch

    return torch.cat([part.float().mean(1) for part in parts])
