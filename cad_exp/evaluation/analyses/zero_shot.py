"""Zero-shot: do features lead to names of classes that the map to texts has never seen?

1. Leave out some classes. Fit a ridge map from pooled features to the embeddings of captions, by the other classes'
   training images alone.
2. Call held-out images of the classes that were left out by their nearest name: among these classes, and among all.
   Call held-out images of the other classes too.
3. Every class is left out once. Hookpoint and penalty are chosen inside the training images, by classes that are left
   out there: the classes under test have no part in it.
4. Do the same with what the network must beat, and with captions in random order.

After DiffDis (arXiv 2308.09306), which reads a diffusion model's features in the space of its text encoder.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from cad_exp.data.prompts.templates import fill
from cad_exp.evaluation.analyses import features
from cad_exp.evaluation.analyses.base import Findings, Given, OfClasses, label_of
from cad_exp.evaluation.analyses.zero_shot_folds import Folds, Named, chosen
from cad_exp.evaluation.analyses.zero_shot_report import metrics, table, verdict, views
from cad_exp.evaluation.variants import CONTROL, ENCODER, LATENT, NETWORK, PIXELS, UNTRAINED
from cad_exp.models.pipeline import DiffusionModel
from cad_exp.representations import NOISY_LATENT
from cad_exp.representations.hookpoints import AUTO
from cad_exp.representations.probes import maps
from cad_exp.representations.probes.base import split_images
from cad_exp.utils.errors import UserError

TRAINING = (0.6, 0.0)  # shares of training and validation images: choices are made by classes inside the training ones


class ZeroShot(OfClasses):
    """Call images by names of classes that were never seen.

    label: whose classes; None: the first. prompt: a template with one {}, for the name of a class. hookpoint: one of
    those that are read; `auto`: each fold chooses. timestep: the nearest of those that are read. folds: groups of
    classes, each left out once. leave_out: classes that take no part; None: the class `nothing`, if there is one.
    """

    reads_activations, reads_untrained = "mean", True

    def __init__(
        self,
        label: str | None,
        prompt: str,
        hookpoint: str,
        timestep: int,
        folds: int,
        leave_out: Sequence[str] | None = None,
    ):
        super().__init__(label, prompt, leave_out)
        self.hookpoint, self.timestep, self.folds = hookpoint, timestep, folds

    def check(self, classes: Mapping[str, Sequence[str]]) -> None:
        """Check that every fold leaves out two classes at least, and leaves two to learn from."""
        super().check(classes)
        label = label_of(self.label, classes)
        number = len(self.names(classes))
        if number < 2 * self.folds:
            raise UserError(
                f"analysis.folds={self.folds} leaves out less than two classes at a time: '{label}' has {number} "
                f"classes with a name, so use {max(2, number // 2)} at most"
                if number >= 4
                else f"'{label}' has {number} classes with a name: zero-shot classification needs four at least"
            )

    def find(self, given: Given) -> Findings:
        """Return how often images of unseen and of seen classes are called by their name."""
        names, folds = self.names(given.classes), self._folds(given)
        moment = features.nearest(list(given.timesteps), self.timestep)
        t, found = int(given.timesteps[moment]), []
        for number, at in enumerate(map(int, given.timesteps)):
            found += self._over_places(given, folds, number, at)
            given.tick(number + 1, len(given.timesteps) + 1)
        others = {PIXELS: maps.pixels(given.images.images).reshape(len(given.images), -1)}
        if given.encoder is not None:
            others[ENCODER] = given.encoder.features(given.images.images, "mean").double().numpy()
        found += [chosen(variant, -1, {"": folds.read(x)}, folds) for variant, x in others.items()]
        shuffled = folds.shuffled(given.seed)
        read = {name: shuffled.read(features.pooled(given.activations, name, moment)) for name in self._places(given)}
        found.append(chosen(CONTROL, t, read, folds))
        now = [each for each in found if each.t in (t, -1)]
        label = label_of(self.label, given.classes)
        drawn = views(found, now, names, folds, label)
        return Findings(table(found, names, folds), metrics(now, folds, label), drawn, verdict(now, folds, t))

    def _places(self, given: Given) -> list[str]:
        if self.hookpoint != AUTO:
            return [features.hookpoint(given, self.hookpoint)]
        return [name for name in given.activations if name != NOISY_LATENT] or list(given.activations)

    def _over_places(self, given: Given, folds: Folds, number: int, t: int) -> list[Named]:
        """Return what network, random weights and noisy latent say at one timestep."""
        made = []
        places = self._places(given)
        for variant, activations in ((NETWORK, given.activations), (UNTRAINED, given.untrained)):
            read = {
                name: folds.read(features.pooled(activations, name, number)) for name in places if name in activations
            }
            if read:
                made.append(chosen(variant, t, read, folds))
        if NOISY_LATENT in given.activations and places != [NOISY_LATENT]:
            x = features.pooled(given.activations, NOISY_LATENT, number)
            made.append(chosen(LATENT, t, {NOISY_LATENT: folds.read(x)}, folds))
        return made

    def _folds(self, given: Given) -> Folds:
        """Return the task: which images, which classes are left out when, and all embeddings."""
        label = label_of(self.label, given.classes)
        known, names = list(given.classes[label]), self.names(given.classes)
        renumbered = np.full(len(known) + 1, -1)  # the last: images without a class
        renumbered[[known.index(name) for name in names]] = np.arange(len(names))
        classes = renumbered[given.images.labels[label]]
        split = split_images(len(classes), given.seed, TRAINING)
        train, test = (part[classes[part] >= 0] for part in (split.train, split.test))
        if len(np.unique(classes[train])) < 4 or not len(test):
            raise UserError("too few images to leave classes out: raise images.number")
        captions = list(dict.fromkeys(given.images.captions))
        texts = embedded(given.model, captions, given.batch_size)
        place = {caption: number for number, caption in enumerate(captions)}
        own = texts[[place[caption] for caption in given.images.captions]]
        named = embedded(given.model, [fill(self.prompt, name) for name in names], given.batch_size)
        parts = np.array_split(np.random.default_rng([given.seed, 67]).permutation(len(names)), self.folds)
        return Folds(train, test, classes, own, named, tuple(parts), given.seed)


@torch.no_grad()
def embedded(model: DiffusionModel, prompts: Sequence[str], batch_size: int) -> np.ndarray:
    """Return one vector (N, E) for each prompt: the mean of the text encoder's states over the prompt's positions."""
    parts = [
        model.encode(prompts[start : start + batch_size]).text.double().mean(1).cpu()
        for start in range(0, len(prompts), batch_size)
    ]
    return torch.cat(parts).numpy()
