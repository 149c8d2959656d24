"""Which latents are shown: the purest, some of median purity, some at random; and their rows of images."""

from __future__ import annotations

import numpy as np

from cad_exp.evaluation.monosemanticity.purity import purity
from cad_exp.pipeline.held_out import TOP, HeldOut
from cad_exp.reporting.figures.latents import Latent

ROWS = 3  # latents of a kind


def chosen(held: HeldOut, number: int = ROWS) -> dict[str, list[int]]:
    """Return latents by why they are shown, at most `number` of each kind; purity is that of the first label."""
    classes = next(iter(held.labels.values()))
    found = purity(held.codes, classes, TOP, seed=held.features.seed)
    if not len(found.latents):
        return {}
    order = found.latents[np.argsort(-found.purity, kind="stable")]
    first = _distinct(order, held.codes, classes)
    middle = len(order) // 2
    drawn = np.random.default_rng(held.features.seed).permutation(order)
    kinds = {"purest": first, "of median purity": order[middle:], "at random": drawn}
    return {kind: [int(each) for each in latents[:number]] for kind, latents in kinds.items()}


def gallery(held: HeldOut) -> list[Latent]:
    """Return a row for each chosen latent."""
    return [_latent(held, latent, kind) for kind, latents in chosen(held).items() for latent in latents]


def _distinct(order: np.ndarray, codes: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Return the same latents, those before that are the first of their class."""
    common = [np.bincount(classes[np.argsort(-codes[:, latent])[:TOP]] + 1).argmax() for latent in order]
    _, first = np.unique(common, return_index=True)
    rest = np.setdiff1d(np.arange(len(order)), first)
    return np.asarray(order[np.concatenate([np.sort(first), rest])])


def _latent(held: HeldOut, latent: int, kind: str) -> Latent:
    label, classes = next(iter(held.labels.items()))
    top = held.top(latent)
    seen = [held.names[label][classes[number]] if classes[number] >= 0 else "none" for number in top]
    common = max(set(seen), key=seen.count)
    return Latent(
        latent,
        kind,
        [held.picture(number) for number in top],
        [held.map(number, latent) for number in top],
        f"{common} {seen.count(common)}/{len(seen)}",
        held.frequency(latent),
    )
