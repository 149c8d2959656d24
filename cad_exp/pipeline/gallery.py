"""What single latents act on: the images in which they act most, and where in these."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cad_exp.evaluation.variants import AUTOENCODER
from cad_exp.pipeline.runtime import Runtime
from cad_exp.pipeline.stages.features import Features
from cad_exp.pipeline.stages.tokens import INDEX, AnyTokens
from cad_exp.reporting.figures.latents import Latent

if TYPE_CHECKING:
    from cad_exp.representations.sae.autoencoder import Autoencoder

TOP, ROWS = 8, 3  # images of a latent; latents of a kind


@dataclass(frozen=True)
class _Shown:
    """One image's place: which stage of tokens, and which row of it."""

    stage: AnyTokens
    row: int


def gallery(runtime: Runtime, features: Features) -> list[Latent]:
    """Return the purest latents of the first autoencoder, some of median purity, and some drawn at random.

    Purity is that of the first label. Only held-out images are shown.
    """
    own = next(iter(runtime.get(features.autoencoders).values()))
    trained, measured = runtime.get(own)[0].autoencoder, runtime.get(features)
    stages = [*features.choice, *features.test]
    places = [_Shown(stage, row) for stage in stages for row in range(stage.images.count)]
    codes = measured.codes(0, AUTOENCODER)[-len(places) :].toarray()
    label, names = _label(runtime, stages[0])
    classes = np.concatenate([runtime.get(stage.images).labels[label] for stage in stages])
    kinds = _chosen(codes, classes, features.seed)
    return [
        _latent(runtime, own.hookpoint, trained, places, codes, latent, kind, classes, names)
        for kind, latents in kinds.items()
        for latent in latents
    ]


def _label(runtime: Runtime, stage: AnyTokens) -> tuple[str, list[str]]:
    label, names = next(iter(stage.images.given().classes().items()))
    return label, names


def _chosen(codes: np.ndarray, classes: np.ndarray, seed: int) -> dict[str, list[int]]:
    from cad_exp.evaluation.monosemanticity.purity import purity

    found = purity(codes, classes, TOP, seed=seed)
    if not len(found.latents):
        return {}
    order = found.latents[np.argsort(-found.purity, kind="stable")]
    first = _distinct(order, codes, classes)
    middle = len(order) // 2
    drawn = np.random.default_rng(seed).permutation(order)
    kinds = {"purest": first[:ROWS], "of median purity": order[middle : middle + ROWS], "at random": drawn[:ROWS]}
    return {kind: [int(each) for each in latents] for kind, latents in kinds.items()}


def _distinct(order: np.ndarray, codes: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Return the same latents, those before that are the first of their class."""
    common = [np.bincount(classes[np.argsort(-codes[:, latent])[:TOP]] + 1).argmax() for latent in order]
    _, first = np.unique(common, return_index=True)
    rest = np.setdiff1d(np.arange(len(order)), first)
    return np.asarray(order[np.concatenate([np.sort(first), rest])])


def _latent(
    runtime: Runtime,
    hookpoint: str,
    trained: Autoencoder,
    places: Sequence[_Shown],
    codes: np.ndarray,
    latent: int,
    kind: str,
    classes: np.ndarray,
    names: Sequence[str],
) -> Latent:
    top = np.argsort(-codes[:, latent], kind="stable")[:TOP]
    seen = [names[classes[number]] if classes[number] >= 0 else "none" for number in top]
    common = max(set(seen), key=seen.count)
    return Latent(
        latent,
        kind,
        [places[number].stage.pictures(runtime)[places[number].row] for number in top],
        [_map(runtime, places[number], hookpoint, trained, latent) for number in top],
        f"{common} {seen.count(common)}/{len(seen)}",
        float((codes[:, latent] > 0).mean()),
    )


def _map(runtime: Runtime, shown: _Shown, hookpoint: str, trained: Autoencoder, latent: int) -> np.ndarray:
    """How strongly a latent acts at every position that was read, averaged over steps: (side, side), else NaN."""
    import pandas as pd

    tokens = runtime.all([shown.stage], "tokens")[0].tensor(hookpoint)[shown.row]
    acts = trained.encode(tokens).matrix(trained.width)[:, [latent]].toarray().ravel()
    index = pd.read_parquet(runtime.place(shown.stage) / INDEX)
    index = index[index["hookpoint"] == hookpoint]
    where = index["position"].to_numpy()[shown.row * len(tokens) : (shown.row + 1) * len(tokens)]
    side = int(np.ceil(np.sqrt(index["position"].max() + 1))) if where.max() >= 0 else 1
    sums, counts = np.zeros(side * side), np.zeros(side * side)
    np.add.at(sums, np.maximum(where, 0), acts)
    np.add.at(counts, np.maximum(where, 0), 1)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan).reshape(side, side)
