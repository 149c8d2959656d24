"""What a zero-shot analysis tells: metrics, table, pictures and words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd

from cad_exp.evaluation.analyses.base import Metric
from cad_exp.evaluation.analyses.views import Bars, Lines, Matrix, View
from cad_exp.evaluation.analyses.zero_shot_folds import AMONG_ALL, SEEN, UNSEEN, Folds, Named, per_class
from cad_exp.evaluation.intervals.estimate import estimated
from cad_exp.evaluation.intervals.formulas import Bounds
from cad_exp.evaluation.intervals.images import Mean
from cad_exp.evaluation.measured import metric
from cad_exp.evaluation.variants import CONTROL, NETWORK

WHAT = {
    UNSEEN: "held-out images of classes that the map never saw, called by name among the classes left out with theirs",
    AMONG_ALL: "held-out images of classes that the map never saw, called by name among all classes",
    SEEN: "held-out images of classes that the map has seen, called by name among all classes",
}
NAMES = {UNSEEN: "unseen", AMONG_ALL: "unseen_among_all", SEEN: "seen"}


@dataclass(frozen=True)
class OverClasses(Mean):
    """The mean of the classes' accuracies: what a new class may expect, so the classes are the sample."""

    words: ClassVar[str] = "95 % Student t over classes; none for one class or equal values"
    change_words: ClassVar[str] = "95 % Student t of the differences per class"

    def interval(self) -> Bounds | None:
        """Return the ends inside 0..1."""
        found = super().interval()
        return None if found is None else (max(0.0, found[0]), min(1.0, found[1]))


def accuracy(named: Named, kind: str, folds: Folds) -> OverClasses:
    """Return the accuracy of one kind, every class weighing alike."""
    return OverClasses(per_class(named.hits[kind], folds.classes[folds.test]))


def metrics(now: Sequence[Named], folds: Folds, label: str) -> list[Metric]:
    """Return each kind of accuracy of every source; the network's beside all others."""
    made = []
    for kind, name in NAMES.items():
        found = {each.variant: accuracy(each, kind, folds) for each in now}
        for each in now:
            told = {"what": f"accuracy on {WHAT[kind]}, mean over classes", "chance": folds.chance[kind]}
            told |= {"t": each.t if each.t >= 0 else None, "hookpoints": sorted(set(each.places) - {""})}
            told |= {"classes": len(found[each.variant].values), "folds": len(folds.unseen)}
            if each.variant == CONTROL:
                told["control"] = "captions of the training images in random order"
            others = {other: found[other] for other in found if each.variant == NETWORK and other != NETWORK}
            estimate = found[each.variant]
            made.append(metric(f"{name}@{label}", each.variant, estimate, len(folds.test), True, told, others))
    return made


def table(found: Sequence[Named], names: Sequence[str], folds: Folds) -> pd.DataFrame:
    """Return the accuracy of every class in rows; t is -1 where images are read."""
    truth, present = folds.classes[folds.test], np.unique(folds.classes[folds.test])
    rows = [
        (each.variant, each.t, kind, names[number], float(value), int((truth == number).sum()), folds.chance[kind])
        for each in found
        for kind in NAMES
        for number, value in zip(present, per_class(each.hits[kind], truth), strict=True)
    ]
    return pd.DataFrame(rows, columns=["variant", "t", "kind", "class", "accuracy", "n", "chance"])


def views(found: Sequence[Named], now: Sequence[Named], names: Sequence[str], folds: Folds, label: str) -> list[View]:
    """Return bars of both accuracies, lines over timesteps, and what unseen classes are called."""
    drawn: list[View] = []
    for kind, title in ((UNSEEN, "Unseen classes, among those left out together"), (SEEN, "Seen classes, among all")):
        ends = np.array([_ends(accuracy(each, kind, folds)) for each in now])
        note = f"accuracy on held-out images, mean over classes of {label}; the line: chance"
        rows = [each.variant for each in now]
        drawn.append(Bars(title, rows, ends[:, 0], ends[:, 1], ends[:, 2], chance=folds.chance[kind], note=note))
    steps = sorted({each.t for each in found if each.t >= 0})
    over = {(each.variant, each.t): _ends(accuracy(each, UNSEEN, folds)) for each in found}
    series = [name for name in dict.fromkeys(each.variant for each in found) if all((name, t) in over for t in steps)]
    if len(steps) > 1 and series:
        values = np.array([[over[name, t] for t in steps] for name in series])
        drawn.append(Lines("Unseen classes by timestep", "timestep", steps, series, *np.moveaxis(values, 2, 0)))
    network = next(each for each in now if each.variant == NETWORK)
    truth = folds.classes[folds.test]
    counts = np.zeros((len(names), len(names)))
    np.add.at(counts, (truth, network.said), 1)
    share = np.where(counts.sum(1, keepdims=True) > 0, counts / np.maximum(counts.sum(1, keepdims=True), 1), np.nan)
    note = "down: the class, which the map has not seen; across: its name out of all; share of held-out images"
    drawn.append(Matrix("What images of unseen classes are called", list(names), list(names), share, note=note))
    return drawn


def verdict(now: Sequence[Named], folds: Folds, t: int) -> dict[str, str]:
    """Return in words how far features lead to names."""
    told = {}
    found = {each.variant: each for each in now}
    for kind, words in ((UNSEEN, "unseen classes"), (AMONG_ALL, "unseen, among all"), (SEEN, "seen classes")):
        own, chance = accuracy(found[NETWORK], kind, folds), folds.chance[kind]
        low = (own.interval() or (own.value, own.value))[0]
        sure = "surely above chance" if low > chance else "not surely above chance"
        head = f"Called rightly in {own.value:.2f} at t = {t} (chance {chance:.2f}: {sure})"
        rivals = [
            f"{accuracy(each, kind, folds).value:.2f} ({name})" for name, each in found.items() if name != NETWORK
        ]
        told[words] = f"{head}; beside it {', '.join(rivals)}."
    return told


def _ends(estimate: OverClasses) -> list[float]:
    return [np.nan if each is None else float(each) for each in estimated(estimate)]
