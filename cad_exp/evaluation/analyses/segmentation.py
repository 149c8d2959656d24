"""Segmentation: where is the object? By maps of its word, and by a pyramid of features, beside the true masks.

Word maps (DAAM, arXiv 2210.04885) are cross-attention to the object's word, averaged over heads and layers. They need
no training: a threshold and a timestep are chosen on validation images. The pyramid (VPD, arXiv 2303.02153) reads every
position by a linear classifier of the activations with hardly any noise.

Controls of the maps: another class's word on the same image, random weights, and how near the centre a pixel is. Those
of the pyramid: random weights, the noisy latent, the pixels, and the place in the image alone. The same classifier
reads the word maps too, which says what they tell beside the place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from cad_exp.data.prompts.templates import fill
from cad_exp.evaluation.analyses.base import Findings, Given, OfClasses, label_of
from cad_exp.evaluation.analyses.found_masks import Maps, findings
from cad_exp.evaluation.dense import Segmented, segmented
from cad_exp.evaluation.variants import CENTRE, LATENT, NETWORK, OTHER_WORD, PIXELS, PLACE, UNTRAINED, WORD
from cad_exp.representations import NOISY_LATENT
from cad_exp.representations.cross_attention import attentions_to_text
from cad_exp.representations.hookpoints import choose_hookpoints
from cad_exp.representations.probes.base import split_images
from cad_exp.representations.pyramid import at_positions, patches, pyramid
from cad_exp.representations.untrained import untrained
from cad_exp.representations.word_maps import word_maps

SPLIT = (0.5, 0.15)  # shares of training and validation images
SIDE = 16  # positions per side that a pyramid has at most
OBJECT, CLASS = "object", "class"


@dataclass(frozen=True)
class _Asked:
    """The images that have an object with a name. known: their numbers among those given; y: (n,) of the names."""

    given: Given
    names: list[str]
    known: list[int]
    y: np.ndarray

    @property
    def numbers(self) -> list[int]:
        """Their numbers in the source."""
        return [int(self.given.numbers[n]) for n in self.known]


class Segmentation(OfClasses):
    """Find objects by word maps and by a pyramid of features.

    label: the one that names what the masks show; None: the first. prompt: a template with one {}, for the name.
    images: how many are looked at. t: timestep of the pyramid. hookpoints: its layers. leave_out: classes without an
    object; None: the class `nothing`, if there is one.
    """

    needs_masks = reads_attention = True

    def __init__(
        self,
        label: str | None,
        prompt: str,
        images: int,
        t: int,
        hookpoints: Sequence[str],
        leave_out: Sequence[str] | None = None,
    ):
        super().__init__(label, prompt, leave_out)
        self.images, self.t, self.hookpoints = images, t, hookpoints

    def find(self, given: Given) -> Findings:
        """Return how well maps and pyramid meet the true masks."""
        assert given.images.masks is not None  # the stage asks for them
        label, names = label_of(self.label, given.classes), self.names(given.classes)
        number = {given.classes[label].index(name): place for place, name in enumerate(names)}
        known = [n for n, each in enumerate(given.images.labels[label]) if int(each) in number][: self.images]
        asked = _Asked(given, names, known, np.array([number[int(given.images.labels[label][n])] for n in known]))
        masks, pictures = given.images.masks[known], given.images.images[known]
        split = split_images(len(known), given.seed, SPLIT)
        tick = _Count(given, len(known) * (3 * len(given.timesteps) + 2))
        other = (asked.y + np.random.default_rng([given.seed, 37]).integers(1, len(names), len(known))) % len(names)
        maps = {NETWORK: self._maps(asked, asked.y, tick), OTHER_WORD: self._maps(asked, other, tick)}
        features = self._pyramid(asked, tick)
        side = int(round(features.shape[1] ** 0.5))
        layers = [each.name for each in attentions_to_text(given.model)]
        with untrained(given.model, given.seed + 1):
            maps[UNTRAINED] = self._maps(asked, asked.y, tick)
            random = self._pyramid(asked, tick)
        maps[CENTRE] = _centre(masks.shape)
        read = {
            NETWORK: features[..., self._channels(asked) :],
            UNTRAINED: random[..., self._channels(asked) :],
            LATENT: features[..., : self._channels(asked)],
            PIXELS: patches(pictures, side),
            PLACE: features[..., :0],
        }
        found: dict[tuple[str, str], Segmented] = {}
        for source, each in read.items():
            found[OBJECT, source] = segmented(each, np.zeros_like(asked.y), masks, split)
            found[CLASS, source] = segmented(each, asked.y, masks, split)
        for source, own in ((WORD, NETWORK), (OTHER_WORD, OTHER_WORD)):  # they know the word: no class is asked of them
            found[OBJECT, source] = segmented(_by_position(maps[own], side), np.zeros_like(asked.y), masks, split)
        words = {source: Maps(each, masks, split) for source, each in maps.items()}
        shown = [names[each] for each in asked.y[split.test]]
        return findings(words, found, pictures[split.test], masks[split.test], shown, given.timesteps, layers, self.t)

    def _maps(self, asked: _Asked, named: np.ndarray, tick: _Count) -> np.ndarray:
        """Return the maps (n, timesteps, layers, h, w) of the words of some classes (n,)."""
        given, words = asked.given, [asked.names[each] for each in named]
        prompts = [fill(self.prompt, word) for word in words]
        how = (given.timesteps, given.seed, given.batch_size, tick)
        return word_maps(given.model, given.latents[asked.known], asked.numbers, prompts, words, *how).numpy()

    def _pyramid(self, asked: _Asked, tick: _Count) -> np.ndarray:
        """Return features (n, positions, F): those of the noisy latent first, then of the hookpoints."""
        given = asked.given
        places = choose_hookpoints(given.model, [NOISY_LATENT, *self.hookpoints])
        first = [each for each in places if each.name == NOISY_LATENT]
        places = first + [each for each in places if each.kind not in (NOISY_LATENT, "text")]
        side = min(SIDE, given.latents.shape[-1])
        how = (places, self.t, given.seed, side, given.batch_size, tick)
        return pyramid(given.model, given.latents[asked.known], asked.numbers, *how)

    @staticmethod
    def _channels(asked: _Asked) -> int:
        """Return how many of the features are the noisy latent's."""
        return int(asked.given.latents.shape[1])


class _Count:
    """Progress over several passes."""

    def __init__(self, given: Given, total: int):
        self.given, self.total, self.done = given, total, 0

    def __call__(self, rows: int) -> None:
        self.done += rows
        self.given.tick(self.done, self.total)


def _by_position(maps: np.ndarray, side: int) -> np.ndarray:
    """Return maps (N, timesteps, layers, h, w) as features (N, side^2, timesteps layers)."""
    found = torch.from_numpy(maps).flatten(1, 2).flatten(2).movedim(1, -1)
    return at_positions(found, side).numpy()


def _centre(shape: tuple[int, ...]) -> np.ndarray:
    """Return maps (N, 1, 1, H, W) that fall with the distance from the centre."""
    count, height, width = shape
    y, x = np.mgrid[0:height, 0:width]
    far = np.hypot((y + 0.5) / height - 0.5, (x + 0.5) / width - 0.5)
    return np.broadcast_to(-far.astype(np.float32), (count, 1, 1, height, width))
