"""What activations take on disk and in memory, from the shapes of a network alone: nothing is computed.

A number is fp32, 4 bytes. Of one image and place, `reads` counts timesteps times draws, or steps of a trajectory.

tokens (task=sae)       positions that are kept x features x reads; all places lie on disk
activations (task=probe)  mean: features; grid: at most 8 x 8 positions x features; map: all positions
part                    what is held while one batch of images is read: all places, kept positions; of noised tokens all
                        positions, for they are drawn from whole maps
training                one place: the shards of its buffer (16, or 2 GiB) twice, for they are joined before they are
                        shuffled; three times one shard at least, for moments are added up in fp64
probing                 one place at one timestep, of all images, twice: as read in parts, and joined
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from cad_exp.interventions.gating import Tap, watched
from cad_exp.interventions.networks import Networks
from cad_exp.representations import NOISY_LATENT
from cad_exp.representations.activations import GRID
from cad_exp.representations.hookpoints import Hookpoint, taps
from cad_exp.representations.sae.stream import buffer_for
from cad_exp.representations.tokens import ALL, MEAN, Positions

NUMBER = 4  # bytes


@dataclass(frozen=True)
class Place:
    """The activation of one image at a hookpoint."""

    positions: int
    features: int

    def kept(self, asked: Positions) -> int:
        """Return the numbers that tokens keep of one reading: of all positions, some, or their mean."""
        return self.features * (
            1 if asked == MEAN else self.positions if asked == ALL else min(int(asked), self.positions)
        )

    def pooled(self, pooling: str) -> int:
        """Return the numbers that a probe gets of one reading."""
        positions = {"mean": 1, "grid": min(self.positions, GRID**2), "map": self.positions}[pooling]
        return self.features * positions


@dataclass(frozen=True)
class Size:
    """How many places, and bytes. work: of training or probing; the head of this module says what each holds."""

    places: int
    disk: int
    part: int
    work: int


def places(
    network: nn.Module, call: Callable[[nn.Module], Any], hookpoints: Iterable[Hookpoint], latent: tuple[int, int]
) -> dict[str, Place]:
    """Return the place of every hookpoint of a denoiser on the meta device.

    call: runs it once for one image. latent: positions and channels of the noisy latent.
    """
    asked, found = list(hookpoints), dict[str, Place]()

    def see(tap: Tap, x: torch.Tensor) -> None:
        found[tap.module] = Place(x[0].numel() // x.shape[-1], x.shape[-1])

    with torch.no_grad(), watched(Networks.of(network), taps(asked, text=False), see):
        call(network)
    if any(each.name == NOISY_LATENT for each in asked):
        found[NOISY_LATENT] = Place(*latent)
    return {each.name: found[each.name] for each in asked if each.name in found}


def of_tokens(
    found: Mapping[str, Place], images: int, reads: int, positions: Positions, part: int, noised: bool
) -> Size:
    """Return what the tokens of so many images take. part: images of a shard."""
    kept = {name: NUMBER * reads * place.kept(positions) for name, place in found.items()}
    read = {name: NUMBER * reads * place.kept(ALL if noised else positions) for name, place in found.items()}
    batch = min(part, images)
    shard = batch * max(kept.values())
    held = min(buffer_for(shard) * shard, images * max(kept.values()))
    return Size(len(found), images * sum(kept.values()), batch * sum(read.values()), max(2 * held, 3 * shard))


def of_probes(
    found: Mapping[str, Place], images: int, times: int, draws: int, pooling: str, part: int, twice: bool
) -> Size:
    """Return what the activations of so many images take. twice: also of a network with random weights."""
    each = {name: NUMBER * _features(name, place, pooling) for name, place in found.items()}
    total = sum(each.values()) * times * draws
    return Size(
        len(found), images * total * (2 if twice else 1), min(part, images) * total, 2 * images * max(each.values())
    )


def _features(name: str, place: Place, pooling: str) -> int:
    """Return what is kept; a noisy latent is never averaged over all positions."""
    return place.pooled("grid" if name == NOISY_LATENT and pooling == "mean" else pooling)
