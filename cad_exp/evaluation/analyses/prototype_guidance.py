"""Sampling towards prototypes, beside sampling towards nothing and towards random directions of features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cad_exp.evaluation.analyses.base import Given, Metric
from cad_exp.evaluation.analyses.views import Pictures
from cad_exp.evaluation.intervals.images import Share
from cad_exp.evaluation.measured import metric
from cad_exp.evaluation.variants import GUIDED, RANDOM_DIRECTION, UNGUIDED
from cad_exp.representations.activations import Noising, extract
from cad_exp.representations.guidance import sample, toward
from cad_exp.representations.hookpoints import Hookpoint, choose_hookpoints
from cad_exp.representations.probes import linear, maps
from cad_exp.representations.probes.base import balanced_accuracy, split_images
from cad_exp.representations.prototypes import Prototypes, normalised

FIRST = 1_000_000  # seeds of sampled images: apart from those of noised ones
SHOWN = 8  # images of a row of the picture
VARIANTS = (GUIDED, UNGUIDED, RANDOM_DIRECTION)


@dataclass(frozen=True)
class Guidance:
    """Settings: prototypes to follow, images of each, and how (`representations.guidance`)."""

    guided: int
    images: int
    steps: int
    scale: float
    temperature: float


@dataclass(frozen=True)
class Reader:
    """A linear probe on the image tower of a CLIP, which the diffusion model has nothing to do with."""

    probe: linear.Linear
    kept: np.ndarray  # the classes that it knows
    accuracy: float  # balanced, on held-out images


@dataclass(frozen=True)
class Guided:
    """What was sampled. images: uint8 (prototypes x images, H, W, 3) by variant. assigned, shown: hits (N,) by variant.

    shown: whether the reader sees the prototype's class; nothing without a reader.
    """

    label: str
    names: Sequence[tuple[int, str]]
    how: Guidance
    images: Mapping[str, np.ndarray]
    assigned: Mapping[str, np.ndarray]
    shown: Mapping[str, np.ndarray]
    accuracy: float | None

    def metrics(self) -> list[Metric]:
        """Return the shares of images with the wanted prototype, and with its class, of every variant."""
        whats = {"assigned": ("share of sampled images whose nearest prototype is the wanted one", self.assigned)}
        if self.shown:
            what = "share of sampled images in which a reader sees the class of the wanted prototype"
            whats[f"shown@{self.label}"] = (what, self.shown)
        made = []
        for name, (what, hits) in whats.items():
            told = {"what": what, "prototypes": [f"{k}: {word}" for k, word in self.names], **vars(self.how)}
            if name != "assigned":
                told["reader"] = f"linear probe on a CLIP's image tower, balanced accuracy {self.accuracy:.3f} held out"
            for variant, each in hits.items():
                others = {other: Share(hits[other]) for other in hits if variant == GUIDED and other != GUIDED}
                made.append(metric(name, variant, Share(each), len(each), True, told, others))
        return made

    def view(self) -> Pictures:
        """Return the images, a row for each prototype and variant."""
        each, columns = self.how.images, min(SHOWN, self.how.images)
        rows, parts = [], []
        for number, (k, word) in enumerate(self.names):
            for variant, images in self.images.items():
                hits = (self.shown or self.assigned)[variant][number * each : (number + 1) * each]
                rows.append(f"{k}: {word}, {variant} ({int(hits.sum())} of {each})")
                parts.append(images[number * each : number * each + columns])
        note = "empty prompt; the same noise in a column of a prototype; in brackets: images that show its class"
        return Pictures(
            "Sampling towards prototypes", rows, [str(c + 1) for c in range(columns)], np.stack(parts), note
        )

    def verdict(self) -> str:
        """Return in words whether guidance shows what it should."""
        hits = self.shown or self.assigned
        what = f"{self.label} of the prototype" if self.shown else "wanted prototype"
        shares = {name: float(np.mean(each)) for name, each in hits.items()}
        lows = [Share(hits[GUIDED]).change(Share(hits[other]))[1] for other in (UNGUIDED, RANDOM_DIRECTION)]
        sure = all(low is not None and low > 0 for low in lows)
        end = "surely more often than without" if sure else "not surely more often than without"
        return (
            f"Guided images show the {what} in {shares[GUIDED]:.2f}, unguided ones in {shares[UNGUIDED]:.2f}, those "
            f"pushed along random directions of features in {shares[RANDOM_DIRECTION]:.2f}: {end}."
        )


def guide(
    given: Given,
    place: str,
    prototypes: Mapping[int, Prototypes],
    t: int,
    wanted: Sequence[tuple[int, int]],
    label: str,
    how: Guidance,
) -> Guided:
    """Sample images towards prototypes, and towards nothing and random directions from the same noise.

    Args:
        given: the model and the images.
        place: name of the hookpoint.
        prototypes: by timestep.
        t: the timestep at which a sampled image gets its nearest prototype.
        wanted: (prototype, class) of those to follow.
        label: whose classes are read.
        how: settings.
    """
    hookpoint = choose_hookpoints(given.model, [place])[0]
    each = torch.tensor([k for k, _ in wanted]).repeat_interleave(how.images)
    classes = np.repeat([name for _, name in wanted], how.images)
    number = len(next(iter(prototypes.values())).directions)
    randomised = {at: _random(one, given.seed, number) for at, one in prototypes.items()}
    reader = _reader(given, label)
    images, assigned, shown = {}, {}, {}
    for variant, followed in ((GUIDED, prototypes), (UNGUIDED, None), (RANDOM_DIRECTION, randomised)):
        latents = _sampled(given, hookpoint, followed, each, how)
        images[variant] = _pictures(given, latents)
        assigned[variant] = _assigned(given, hookpoint, latents, prototypes[t], t) == each.numpy()
        if reader is not None and given.encoder is not None:
            said = reader.probe.predict(given.encoder.features(images[variant], "mean").numpy())
            shown[variant] = reader.kept[said] == classes
    names = [(k, str(given.classes[label][name])) for k, name in wanted]
    return Guided(label, names, how, images, assigned, shown, reader.accuracy if reader else None)


def _random(one: Prototypes, seed: int, number: int) -> Prototypes:
    """Return as many random directions in place of prototypes, the same at every timestep."""
    drawn = np.random.default_rng([seed, 59]).standard_normal((number, one.directions.shape[1]))
    return Prototypes(one.standard, normalised(drawn))


def _sampled(
    given: Given, place: Hookpoint, followed: Mapping[int, Prototypes] | None, wanted: Tensor, how: Guidance
) -> Tensor:
    parts = []
    for start in range(0, len(wanted), given.batch_size):
        own = wanted[start : start + given.batch_size]
        push = None if followed is None else toward(given.model, place, followed, own, how.temperature)
        seeds = [FIRST + given.seed + start + row for row in range(len(own))]
        parts.append(sample(given.model, seeds, how.steps, push, how.scale))
    return torch.cat(parts)


@torch.no_grad()
def _pictures(given: Given, latents: Tensor) -> np.ndarray:
    parts = [given.model.decode(part).cpu() for part in latents.split(given.batch_size)]
    return (torch.cat(parts).movedim(1, -1) * 255).round().to(torch.uint8).numpy()


def _assigned(given: Given, place: Hookpoint, latents: Tensor, prototypes: Prototypes, t: int) -> np.ndarray:
    """Return the nearest prototype of each sampled image, noised to t."""
    numbers, noising = range(FIRST, FIRST + len(latents)), Noising((t,), 1, given.seed)
    found = extract(given.model, latents.cpu(), numbers, [place], noising, batch_size=given.batch_size)
    return prototypes.nearest(found[place.name][:, 0, 0].double().numpy())


def _reader(given: Given, label: str) -> Reader | None:
    """Fit the reader on labelled images; None without an image tower, or with too few images."""
    if given.encoder is None:
        return None
    classes = given.images.labels[label]
    own, kept = maps.usable(classes, split_images(len(classes), given.seed))
    if len(kept) < 2:
        return None
    numbers = np.full(int(classes.max()) + 2, -1)  # the last: images without a class
    numbers[kept] = np.arange(len(kept))
    x = given.encoder.features(given.images.images, "mean").numpy()
    probe = linear.fit(x, numbers[classes], own)
    accuracy = balanced_accuracy(probe.predict(x[own.test]), numbers[classes[own.test]])
    return Reader(probe, kept, accuracy)
