"""What results.json holds of a dictionary: every measure of every label, with its interval and chance level."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cad_exp.evaluation.measured import metric
from cad_exp.evaluation.monosemanticity.best_latent import BestLatents, best_latents
from cad_exp.evaluation.monosemanticity.codes import Task
from cad_exp.evaluation.monosemanticity.purity import QUANTILE, Purity, purity
from cad_exp.evaluation.monosemanticity.sigma import Sigma, sigma_label
from cad_exp.evaluation.monosemanticity.sparse_probe import KS, SparseProbe, sparse_probe
from cad_exp.representations.probes.base import Split

Metric = dict[str, Any]


@dataclass(frozen=True)
class Measured:
    """All that is measured of one dictionary and one label; probes by their k."""

    purity: Purity
    sigma: Sigma
    probes: Mapping[int, SparseProbe]
    best: BestLatents


def measure(
    codes: Any, labels: Mapping[str, np.ndarray], split: Split, ks: Sequence[int] = KS, seed: int = 0
) -> dict[str, Measured]:
    """Measure what a dictionary's latents say of every label.

    Purity and sigma_label take the validation and test images, which the dictionary has not seen. Sparse probes and
    best latents are fitted on training images and measured on test images. A label of which less than two classes are
    in every part of the split is left out.

    Args:
        codes: (images, latents), not negative.
        labels: label -> class (images,) of each image, below 0 for none.
        split: of the images.
        ks: how many latents a sparse probe has for each class.
        seed: of ties, permutations and resamples.
    """
    tasks = {label: Task.of(classes, split) for label, classes in labels.items()}
    unseen = np.sort(np.concatenate([split.validation, split.test]))
    return {
        label: Measured(
            purity(codes[unseen], labels[label][unseen], seed=seed),
            sigma_label(codes[unseen], labels[label][unseen], seed=seed),
            {k: sparse_probe(codes, task, k) for k in ks},
            best_latents(codes, task, seed=seed),
        )
        for label, task in tasks.items()
        if task is not None
    }


def metrics(
    variant: str, measured: Mapping[str, Measured], against: Mapping[str, Mapping[str, Measured]] | None = None
) -> Iterator[Metric]:
    """Yield what results.json holds of one dictionary, with its change against others on the same images.

    `purity@LABEL`, `pure_latents@LABEL`, `label_entropy@LABEL`, `sigma_label@LABEL`, `sparse_probe@LABEL@K` and
    `f1@LABEL`. Left out is what no latent acts in enough images for.

    Args:
        variant: the name of the dictionary.
        measured: of it, by `measure`.
        against: name -> the same of another dictionary.
    """
    for label, own in measured.items():
        others = {name: each[label] for name, each in (against or {}).items() if name != variant and label in each}
        yield from _purity(variant, label, own.purity, {name: each.purity for name, each in others.items()})
        yield from _sigma(variant, label, own.sigma, {name: each.sigma for name, each in others.items()})
        for k, probe in own.probes.items():
            rivals = {name: each.probes[k].accuracy() for name, each in others.items() if k in each.probes}
            yield _sparse_probe(variant, label, probe, rivals)
        yield _f1(variant, label, own.best, {name: each.best.test for name, each in others.items()})


def _purity(variant: str, label: str, own: Purity, others: Mapping[str, Purity]) -> Iterator[Metric]:
    if own.null is None:
        return
    others = {name: each for name, each in others.items() if each.null is not None}
    null, number = own.null, len(own.latents)
    images = f"the {own.top} images in which a latent acts most"
    over = {
        "over": f"latents that act in at least {own.top} images with a class",
        "classes": own.classes,
        "alive": own.alive,
        "dead": own.dead,
        "permutations": len(null.means),
    }
    yield metric(
        f"purity@{label}", variant, own.mean(), number, True,
        {"what": f"share of the most frequent class among {images}", **over, "chance": null.purity,
         "chance_quantile": null.quantile, "quantile": QUANTILE, "p_value": own.p_value()},
        {name: each.mean() for name, each in others.items()},
    )  # fmt: skip
    yield metric(
        f"pure_latents@{label}", variant, own.above(), number, True,
        {"what": f"share of latents whose purity is above the {QUANTILE} quantile of permuted classes", **over,
         "chance": null.above, "threshold": null.quantile},
        {},
    )  # fmt: skip
    yield metric(
        f"label_entropy@{label}", variant, own.mean_entropy(), number, False,
        {"what": f"entropy of the classes of {images}, in bits", **over, "chance": null.entropy,
         "normalised": float(own.normalised.mean()), "most": float(np.log2(min(own.top, own.classes)))},
        {name: each.mean_entropy() for name, each in others.items()},
    )  # fmt: skip


def _sigma(variant: str, label: str, own: Sigma, others: Mapping[str, Sigma]) -> Iterator[Metric]:
    if own.chance is None:
        return
    definition = {
        "what": "mean over the most active latents of the standard deviation of the class numbers of their top images",
        "source": "arXiv 2411.16725",
        "top": own.top,
        "classes": own.classes,
        "chance": own.chance,
        "chance_low": own.chance_low,
        "chance_high": own.chance_high,
        "renumbered": own.renumbered,
        "warning": "it depends on how classes are numbered: `renumbered` holds 95 % of random numberings",
    }
    rivals = {name: each.mean() for name, each in others.items() if each.chance is not None}
    yield metric(f"sigma_label@{label}", variant, own.mean(), len(own.values), False, definition, rivals)


def _sparse_probe(variant: str, label: str, probe: SparseProbe, others: Mapping[str, Any]) -> Metric:
    definition = {
        "what": "balanced accuracy on test images of linear probes on the k latents that tell most of each class",
        "source": "arXiv 2305.01610",
        "k": probe.k,
        "classes": probe.number,
        "chance": 1 / probe.number,
        "chosen": "latents by training images, strength by validation images",
        "strength": probe.strength,
    }
    name = f"sparse_probe@{label}@{probe.k}"
    return metric(name, variant, probe.accuracy(), len(probe.right), True, definition, others)


def _f1(variant: str, label: str, best: BestLatents, others: Mapping[str, Any]) -> Metric:
    definition = {
        "what": "mean over classes of the test images' F1 of the latent and threshold that are best in training",
        "classes": best.task.number,
        "precision": float(best.test.precision.mean()),
        "recall": float(best.test.recall.mean()),
        "training": float(best.training.mean()),
        "chance": float(best.chance.mean()),
        "chance_training": float(best.training_chance.mean()),
        "permutations": len(best.chance),
        "chosen": "latent and threshold by training images",
    }
    return metric(f"f1@{label}", variant, best.test, len(best.task.split.test), True, definition, others)
