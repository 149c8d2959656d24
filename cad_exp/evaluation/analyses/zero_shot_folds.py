"""Classes that are left out in turn, and what a map to texts calls their images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from cad_exp.representations.text_map import STRENGTHS, TextMap, fit

UNSEEN, AMONG_ALL, SEEN = "unseen", "unseen among all", "seen"
INNER = 4  # of the classes that are seen, one of so many is left out to choose by


@dataclass(frozen=True)
class Reading:
    """What one fold's map says. validation: accuracy on the classes that were left out inside the training images.

    among_all: the name (N,) of each test image out of all. among_unseen: of each one of an unseen class out of these.
    """

    validation: float
    among_all: np.ndarray
    among_unseen: np.ndarray


@dataclass(frozen=True)
class Named:
    """One source at one timestep. hits: right or not, by kind: of each test image (N,), NaN where it has no part.

    said: the name (N,) out of all while the image's class is unseen. places: the hookpoint of each fold.
    """

    variant: str
    t: int
    places: tuple[str, ...]
    hits: Mapping[str, np.ndarray]
    said: np.ndarray


@dataclass(frozen=True)
class Folds:
    """The task.

    train, test: rows that have a class. classes: (all rows,), -1 for none. texts: embeddings (all rows, E) of captions.
    names: those (C, E) of classes. unseen: the classes that each fold leaves out. seed: of the inner folds.
    """

    train: np.ndarray
    test: np.ndarray
    classes: np.ndarray
    texts: np.ndarray
    names: np.ndarray
    unseen: tuple[np.ndarray, ...]
    seed: int

    def shuffled(self, seed: int) -> Folds:
        """Return the task with the captions of the training images in random order."""
        texts = self.texts.copy()
        texts[self.train] = texts[np.random.default_rng([seed, 71]).permutation(self.train)]
        return replace(self, texts=texts)

    @property
    def chance(self) -> dict[str, float]:
        """How often a name is right by chance, every class weighing alike."""
        size = {int(each): len(fold) for fold in self.unseen for each in fold}
        present = np.unique(self.classes[self.test])
        guessed = float(np.mean([1 / size[int(each)] for each in present]))
        return {UNSEEN: guessed, AMONG_ALL: 1 / len(self.names), SEEN: 1 / len(self.names)}

    def read(self, features: np.ndarray) -> list[Reading]:
        """Fit and ask the map of each fold for features (all rows, F)."""
        return list(self._readings(features))

    def _readings(self, features: np.ndarray) -> Iterator[Reading]:
        for fold, unseen in enumerate(self.unseen):
            rows = self.train[~np.isin(self.classes[self.train], unseen)]
            strength, validation = self._chosen(features, rows, fold)
            made = fit(features[rows], self.texts[rows], [strength])[0]
            said = made.called(features[self.test], self.names)
            yield Reading(validation, said.argmax(1), unseen[said[:, unseen].argmax(1)])

    def _chosen(self, features: np.ndarray, rows: np.ndarray, fold: int) -> tuple[float, float]:
        """Return the penalty that calls best what is left out of the classes that are seen, and how well it does.

        Of equals the strongest penalty; with too few classes the middle one.
        """
        seen = np.unique(self.classes[rows])
        order = np.random.default_rng([self.seed, 73, fold]).permutation(seen)
        parts = np.array_split(order, max(1, min(INNER, len(seen) // 2)))
        if len(parts) < 2:
            return STRENGTHS[len(STRENGTHS) // 2], 0.0
        right = np.zeros(len(STRENGTHS))
        for out in parts:
            asked = np.isin(self.classes[rows], out)
            maps = fit(features[rows[~asked]], self.texts[rows[~asked]])
            right += [self._accuracy(made, features, rows[asked], out) for made in maps]
        best = max(range(len(STRENGTHS)), key=lambda number: (right[number], number))
        return STRENGTHS[best], float(right[best] / len(parts))

    def _accuracy(self, made: TextMap, features: np.ndarray, rows: np.ndarray, out: np.ndarray) -> float:
        said = out[made.called(features[rows], self.names)[:, out].argmax(1)]
        return float(np.mean(per_class(said == self.classes[rows], self.classes[rows])))


def chosen(variant: str, t: int, read: Mapping[str, Sequence[Reading]], folds: Folds) -> Named:
    """Return what is called in each fold at the hookpoint that its validation chooses; of equals the first."""
    truth, n = folds.classes[folds.test], len(folds.test)
    hits = {kind: np.full(n, np.nan) for kind in (UNSEEN, AMONG_ALL)}
    said, seen, times, places = np.full(n, -1), np.zeros(n), np.zeros(n), list[str]()
    for fold, unseen in enumerate(folds.unseen):
        place = max(read, key=lambda name: read[name][fold].validation)
        found, out = read[place][fold], np.isin(truth, unseen)
        places.append(place)
        hits[UNSEEN][out] = (found.among_unseen == truth)[out]
        hits[AMONG_ALL][out] = (found.among_all == truth)[out]
        said[out] = found.among_all[out]
        seen[~out] += (found.among_all == truth)[~out]
        times[~out] += 1
    hits[SEEN] = seen / np.maximum(times, 1)
    return Named(variant, t, tuple(places), hits, said)


def per_class(hits: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Return the mean of hits over the images of each class that has some, in the order of the classes."""
    return np.array([np.mean(hits[classes == each]) for each in np.unique(classes)])
