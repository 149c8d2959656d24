"""Prototypes: what groups does the model make of images by itself, and can they guide it without labels?

1. Learn prototypes of pooled features at one hookpoint, on 60 % of the images, without their labels.
2. Give every held-out image its nearest prototype; compare these groups with the classes of each label. Beside them
   stand k-means of the same features, prototypes of what the network must beat, and permuted labels.
3. Measure the same groups at the other timesteps, and sample under an empty prompt towards a few of them.

After "Guided diffusion from self-supervised diffusion features" (Hu et al., arXiv 2312.08825).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from cad_exp.evaluation import clusterings
from cad_exp.evaluation.analyses import features
from cad_exp.evaluation.analyses.base import Analysis, Findings, Given, label_of
from cad_exp.evaluation.analyses.prototype_agreement import NMI, Measured, agreement, ends, k_means, metrics, table
from cad_exp.evaluation.analyses.prototype_guidance import Guidance, Guided, guide
from cad_exp.evaluation.analyses.views import Bars, Lines, Matrix, View
from cad_exp.evaluation.variants import KMEANS, LATENT, NETWORK, PIXELS
from cad_exp.representations import NOISY_LATENT
from cad_exp.representations.hookpoints import AUTO
from cad_exp.representations.probes.base import Split, split_images
from cad_exp.representations.prototypes import Prototypes, learn
from cad_exp.utils.errors import UserError

TRAINING = (0.6, 0.0)  # shares of training and validation images: nothing is chosen, so the rest is held out


class SinkhornPrototypes(Analysis):
    """Learn prototypes without labels, compare them with labels, and guide by them.

    label: which guided images are read for; None: the first. hookpoint: one of those that are read; `auto`:
    where groups of training images agree best with the label. timestep: the nearest one of those that are read.
    number: of prototypes. guided: how many of them the sampling follows; images: how many of each; steps, scale and
    temperature: as in `representations.guidance`.
    """

    reads_activations, reads_untrained = "mean", True

    def __init__(
        self,
        label: str | None,
        hookpoint: str,
        timestep: int,
        number: int,
        guided: int,
        images: int,
        steps: int,
        scale: float,
        temperature: float,
    ):
        self.label, self.hookpoint, self.timestep, self.number = label, hookpoint, timestep, number
        self.guidance = Guidance(guided, images, steps, scale, temperature)

    def check(self, classes: Mapping[str, Sequence[str]]) -> None:
        """Check the label, and that no more prototypes are followed than there are."""
        label_of(self.label, classes)
        if self.guidance.guided > self.number:
            raise UserError(
                f"analysis.guided={self.guidance.guided} is more than analysis.number={self.number}: "
                "the sampling can follow as many prototypes as there are"
            )

    def find(self, given: Given) -> Findings:
        """Return how prototypes agree with labels, and what guidance by them shows."""
        split, label = split_images(len(given.images), given.seed, TRAINING), label_of(self.label, given.classes)
        if len(split.train) < self.number:
            raise UserError(
                f"{len(split.train)} training images are too few for analysis.number={self.number} prototypes: "
                "raise images.number"
            )
        moment = features.nearest(list(given.timesteps), self.timestep)
        learned = self._everywhere(given, split, moment)
        asked = self.hookpoint != AUTO
        place = features.hookpoint(given, self.hookpoint) if asked else self._place(given, split, learned, label)
        groups = _Groups(given, split, label, place, moment, learned[place])
        found = [*self._measured(given, split, groups, learned)]
        guided = (
            guide(
                given,
                groups.place,
                groups.over_time(),
                groups.t,
                groups.follow(self.guidance.guided),
                label,
                self.guidance,
            )
            if self.guidance.guided
            else None
        )
        best = {name: self._place(given, split, learned, name) for name in dict.fromkeys(each.label for each in found)}
        now = [each for each in found if each.place in (place, NOISY_LATENT, "") and each.t in (groups.t, -1)]
        now.sort(key=lambda each: each.variant != NETWORK)
        told = [*metrics(now), *(guided.metrics() if guided else [])]
        views = [*_views(found, now, label, groups.t), groups.matrix(), *([guided.view()] if guided else [])]
        return Findings(table(found), told, views, _verdict(found, now, best, groups, guided))

    def _everywhere(self, given: Given, split: Split, moment: int) -> dict[str, Prototypes]:
        """Return the prototypes of every hookpoint at one timestep."""
        made = {}
        for name in given.activations:
            made[name] = self._learn(features.pooled(given.activations, name, moment), split, given)
        return made

    def _learn(self, x: np.ndarray, split: Split, given: Given) -> Prototypes:
        return learn(x[split.train], self.number, given.seed)

    def _place(self, given: Given, split: Split, learned: Mapping[str, Prototypes], label: str) -> str:
        """Return the hookpoint where groups of training images agree best with a label (NMI)."""
        classes = given.images.labels[label]
        rows, moment = split.train[classes[split.train] >= 0], features.nearest(list(given.timesteps), self.timestep)
        found = {}
        for name, made in learned.items():
            groups = made.nearest(features.pooled(given.activations, name, moment)[rows])
            found[name] = clusterings.agreement(groups, classes[rows], clusterings.nmi).value
        return max((name for name in found if name != NOISY_LATENT or len(found) == 1), key=lambda name: found[name])

    def _measured(
        self, given: Given, split: Split, groups: _Groups, learned: Mapping[str, Prototypes]
    ) -> Iterator[Measured]:
        """Yield the agreement with every label: at all hookpoints, then at one for all timesteps and rivals."""
        for name, made in learned.items():
            x = features.pooled(given.activations, name, groups.moment)
            variant = LATENT if name == NOISY_LATENT else NETWORK
            yield from agreement(given, split, (variant, name, groups.t), made.nearest(x))
        for number, t in enumerate(map(int, given.timesteps)):
            for variant, x in features.sources(given, groups.place, number):
                if variant == PIXELS or (variant in (NETWORK, LATENT) and number == groups.moment):
                    continue  # pixels have no timestep, the others stand above
                at = NOISY_LATENT if variant == LATENT else groups.place
                yield from agreement(given, split, (variant, at, t), self._learn(x, split, given).nearest(x))
            given.tick(number + 1, len(given.timesteps))
        rivals = dict(features.sources(given, groups.place, groups.moment))
        made = self._learn(rivals[PIXELS], split, given)
        yield from agreement(given, split, (PIXELS, "", -1), made.nearest(rivals[PIXELS]))
        by_means = k_means(rivals[NETWORK], split.train, self.number, given.seed)
        yield from agreement(given, split, (KMEANS, groups.place, groups.t), by_means)


class _Groups:
    """The prototypes of one hookpoint and timestep, and what they are called by a label of their training images."""

    def __init__(self, given: Given, split: Split, label: str, place: str, moment: int, learned: Prototypes):
        self.given, self.split, self.label, self.place, self.moment = given, split, label, place, moment
        self.learned, self.t, self.number = learned, int(given.timesteps[moment]), len(learned.directions)
        self.classes, self.words = given.images.labels[label], list(given.classes[label])
        self.groups = learned.nearest(features.pooled(given.activations, place, moment))
        self.train, self.test = (part[self.classes[part] >= 0] for part in (split.train, split.test))
        self.names = clusterings.majority(self.groups[self.train], self.classes[self.train], self.number)

    def over_time(self) -> dict[int, Prototypes]:
        """Return the prototypes by timestep: at the others, the directions of the means of the same images."""
        made, train = {self.t: self.learned}, self.split.train
        for number, t in enumerate(map(int, self.given.timesteps)):
            x = features.pooled(self.given.activations, self.place, number)[train]
            made.setdefault(t, Prototypes.named(x, self.groups[train], self.number))
        return made

    def follow(self, most: int) -> list[tuple[int, int]]:
        """Return (prototype, class) of the purest by training images, each of another class."""
        table = clusterings.contingency(
            self.groups[self.train], self.classes[self.train], (self.number, len(self.words))
        )
        pure = table.max(1) / np.maximum(table.sum(1), 1)
        kept: dict[int, int] = {}
        for k in np.argsort(-pure, kind="stable"):
            kept.setdefault(int(self.names[k]), int(k))
        return [(k, name) for name, k in list(kept.items())[:most]]

    def matrix(self) -> Matrix:
        """Return the classes of each prototype's held-out images."""
        shape = (self.number, len(self.words))
        table = clusterings.contingency(self.groups[self.test], self.classes[self.test], shape)
        order = np.argsort(self.names, kind="stable")
        share = table[order] / np.maximum(table[order].sum(1, keepdims=True), 1)
        share[table[order].sum(1) == 0] = np.nan
        rows = [f"{k}: {self.words[self.names[k]]} ({int(table[k].sum())})" for k in order]
        note = "share of a prototype's held-out images; its training images name it; in brackets: images"
        return Matrix(f"Prototypes and the classes of {self.label}", rows, self.words, share, note=note)


def _views(found: Sequence[Measured], now: Sequence[Measured], label: str, t: int) -> list[View]:
    own = [each for each in now if each.label == label]
    value, low, high = np.array([ends(each.estimates[NMI]) for each in own]).reshape(-1, 3).T
    chance = next((each.chance[NMI].value for each in own if each.variant == NETWORK), None)
    note = "held-out images; the line: permuted labels"
    bars = Bars(
        f"Agreement of groups with {label} (NMI)",
        [each.variant for each in own],
        value,
        low,
        high,
        chance=chance,
        note=note,
    )
    views: list[View] = [_by_place(found, t), bars]
    place = next((each.place for each in own if each.variant == NETWORK), "")
    over = [each for each in found if each.label == label and each.t >= 0 and each.place in (place, NOISY_LATENT)]
    by = {(each.variant, each.t): ends(each.estimates[NMI]) for each in over if each.variant != KMEANS}
    series, times = list(dict.fromkeys(name for name, _ in by)), sorted({each for _, each in by})
    if len(times) > 1:
        values = np.array([[by[name, each] for each in times] for name in series])
        title = f"Agreement with {label} (NMI) of prototypes learned at each timestep in {place}"
        views.append(Lines(title, "timestep", times, series, *np.moveaxis(values, 2, 0)))
    return views


def _by_place(found: Sequence[Measured], t: int) -> Matrix:
    """Return what the groups of every hookpoint agree with: NMI with each label."""
    own = [each for each in found if each.t == t and each.variant in (NETWORK, LATENT)]
    by = {(each.place, each.label): each.estimates[NMI].value for each in own}
    places, labels = (list(dict.fromkeys(name)) for name in zip(*by, strict=True)) if by else ([], [])
    values = np.array([[by.get((place, label), np.nan) for label in labels] for place in places])
    note = "held-out images; prototypes see no label; down: the hookpoints in network order"
    return Matrix(f"What groups agree with at t = {t} (NMI)", places, labels, values, note=note)


def _verdict(
    found: Sequence[Measured],
    now: Sequence[Measured],
    best: Mapping[str, str],
    groups: _Groups,
    guided: Guided | None,
) -> dict[str, str]:
    """best: by label, the hookpoint that the training images choose."""
    told, everywhere = (
        {},
        {(each.place, each.label): each for each in found if each.t == groups.t and each.variant == NETWORK},
    )
    for each in now:
        if each.variant != NETWORK:
            continue
        beaten, not_beaten = list[str](), list[str]()
        for other in now:
            if other.label == each.label and other.variant != NETWORK:
                low = each.estimates[NMI].change(other.estimates[NMI])[1]
                (beaten if low is not None and low > 0 else not_beaten).append(other.variant)
        head = f"NMI {each.estimates[NMI].value:.2f} (permuted labels {each.chance[NMI].value:.2f})"
        sure = f"surely above {', '.join(beaten)}" if beaten else "surely above no rival"
        rest = f"; not surely above {', '.join(not_beaten)}" if beaten and not_beaten else ""
        told[f"groups and {each.label}"] = f"{head} in {groups.place} at t = {groups.t}, {sure}{rest}."
    places = [
        f"{label} in {place} ({everywhere[place, label].estimates[NMI].value:.2f})" for label, place in best.items()
    ]
    told["where"] = f"Training images agree best with {', '.join(places)}; in brackets: NMI of held-out images."
    if guided is not None:
        told["guidance"] = guided.verdict()
    return told
