"""Features of the images that several analyses read: the network's, and those that it must beat."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from torch import Tensor

from cad_exp.evaluation.analyses.base import Given
from cad_exp.evaluation.variants import LATENT, NETWORK, PIXELS, UNTRAINED
from cad_exp.representations import NOISY_LATENT
from cad_exp.representations.probes import maps
from cad_exp.utils.errors import choose


def hookpoint(given: Given, asked: str) -> str:
    """Return the name of the hookpoint that is asked for.

    Raises:
        UserError: `activations.hookpoints` does not hold it.
    """
    return choose(asked, list(given.activations), "hookpoint of analysis.hookpoint (activations.hookpoints)")


def nearest(timesteps: tuple[int, ...] | list[int], asked: int) -> int:
    """Return which of the timesteps is nearest to the one that is asked for: its place among them."""
    return min(range(len(timesteps)), key=lambda number: abs(timesteps[number] - asked))


def pooled(found: Mapping[str, Tensor], name: str, number: int) -> np.ndarray:
    """Return features (images, F) float64 of a hookpoint at a timestep by its place, averaged over draws."""
    array: np.ndarray = found[name][:, number].mean(1).double().flatten(1).numpy()
    return array


def sources(given: Given, name: str, number: int) -> Iterator[tuple[str, np.ndarray]]:
    """Yield (variant, features (images, F)): of the network at one hookpoint and timestep, and of its rivals."""
    yield NETWORK, pooled(given.activations, name, number)
    if name != NOISY_LATENT and NOISY_LATENT in given.activations:
        yield LATENT, pooled(given.activations, NOISY_LATENT, number)
    if name in given.untrained:
        yield UNTRAINED, pooled(given.untrained, name, number)
    grid = maps.pixels(given.images.images)
    yield PIXELS, grid.reshape(len(grid), -1)
