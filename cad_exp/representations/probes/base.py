"""What every probe is: fitted on training rows, with choices made on validation rows; test rows it never sees."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np

from cad_exp.utils.errors import UserError

MEAN, GRID = "mean", "grid"  # one vector of each image, or a map of positions


@dataclass(frozen=True)
class Split:
    """Row numbers for training, for choices, and for what is reported; no image is in two of them."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


class Fitted(Protocol):
    """A probe that has been fitted."""

    @property
    def strength(self) -> float:
        """The penalty or weight decay that was chosen."""

    @property
    def validation(self) -> float:
        """Balanced accuracy on the validation rows."""

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Return the class (N,) int of each row."""


class Probe(ABC):
    """A light classifier; the arguments of its class are its settings.

    wants: the features that it reads. MEAN: vectors (N, F). GRID: maps (N, positions, F), of at most 8 x 8 positions.
    """

    wants: ClassVar[str] = MEAN

    @abstractmethod
    def fit(
        self,
        features: np.ndarray,
        classes: np.ndarray,
        split: Split,
        balanced: bool = True,
        seed: int = 0,
        device: str = "cpu",
    ) -> Fitted:
        """Fit on the training rows, and choose on the validation rows whatever there is to choose.

        Args:
            features: (N, F) or (N, positions, F), as the class wants them.
            classes: (N,) int, from 0; rows that are in no part of the split may be negative.
            split: whose test rows are not looked at.
            balanced: whether every class weighs alike in the fit, however many rows it has.
            seed: of whatever is drawn.
            device: where a network is trained.

        Raises:
            UserError: a class without a training row.
        """


def row_weights(y: np.ndarray, number: int, balanced: bool) -> np.ndarray:
    """Return how much each training row counts, (N,) float64 with mean 1.

    Args:
        y: the rows' classes (N,).
        number: of classes.
        balanced: whether the rows of every class weigh alike together.

    Raises:
        UserError: a class without a row.
    """
    counts = np.bincount(y, minlength=number)
    if (counts == 0).any():
        raise UserError(f"class {int(counts.argmin())} has no training image: take more images, or fewer classes")
    weights: np.ndarray = (len(y) / (number * counts))[y] if balanced else np.ones(len(y))
    return weights


def balanced_accuracy(said: np.ndarray, classes: np.ndarray) -> float:
    """Return the mean over the classes that have rows of the share of these that were read rightly."""
    found = [np.mean(said[classes == each] == each) for each in np.unique(classes)]
    return float(np.mean(found))


def split_images(number: int, seed: int, shares: tuple[float, float] = (0.6, 0.2)) -> Split:
    """Return a random split of `number` images; shares: of training and validation, the rest is for the test."""
    order = np.random.default_rng([seed, 13]).permutation(number)
    first, second = round(number * shares[0]), round(number * (shares[0] + shares[1]))
    return Split(np.sort(order[:first]), np.sort(order[first:second]), np.sort(order[second:]))


def thinned(classes: np.ndarray, split: Split, factor: int, seed: int) -> Split:
    """Return the split with 1 of `factor` training rows, at least one, in every second class; the rest is as it was.

    Args:
        classes: (N,) int, from 0; the odd ones are thinned.
        split: of rows that all have a class.
        factor: 1 changes nothing.
        seed: of the rows that stay.
    """
    if factor == 1:
        return split
    kept, y = [], classes[split.train]
    for each in np.unique(y):
        rows = split.train[y == each]
        if each % 2:
            rows = np.random.default_rng([seed, 17, int(each)]).permutation(rows)[: max(1, len(rows) // factor)]
        kept.append(rows)
    return Split(np.sort(np.concatenate(kept)), split.validation, split.test)
