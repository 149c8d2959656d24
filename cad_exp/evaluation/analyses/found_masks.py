"""What a segmentation found: the choice of timestep and layer, its table, metrics, pictures and verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from cad_exp.evaluation.analyses.base import Findings, Metric
from cad_exp.evaluation.analyses.views import Bars, Lines, Matrix, Pictures, View
from cad_exp.evaluation.dense import Segmented
from cad_exp.evaluation.intervals.estimate import estimated
from cad_exp.evaluation.intervals.images import Mean, Share
from cad_exp.evaluation.masks import best_threshold, enlarged, overlaps, pointed, stretched
from cad_exp.evaluation.measured import metric
from cad_exp.evaluation.variants import CENTRE, LATENT, NETWORK, OTHER_WORD, PIXELS, PLACE, UNTRAINED, WORD
from cad_exp.representations.probes.base import Split

IOU = "intersection over union with the true mask, mean over test images"
WHAT = {
    "map_pointing": "share of test images whose map is highest inside the true mask",
    "map_iou": f"{IOU}: the map above a threshold",
    "layer_iou": f"{IOU}: the best layer's map above a threshold",
    "pyramid_iou@object": f"{IOU}: positions read as object or background by a linear classifier",
    "pyramid_iou@class": f"{IOU}: positions read as the image's class by a linear classifier of classes and background",
}
MAPS = "mean over test images, 95 %; timestep, layer and threshold are chosen on validation images"
READ = "mean over test images, 95 %; every classifier is told the place in the image, one of them nothing else"
ALL = -1  # in place of a layer: the mean of all
SHOWN = 6  # images in the picture


@dataclass(frozen=True)
class Shown:
    """One map of the test images. validation: mean overlap on the validation images, by which choices are made."""

    t: int
    layer: int
    threshold: float
    validation: float
    pointing: np.ndarray
    overlap: np.ndarray


@dataclass(frozen=True)
class Maps:
    """Maps (N, timesteps, layers, h, w) of one source, with the true masks (N, H, W) and the split of the images."""

    maps: np.ndarray
    masks: np.ndarray
    split: Split

    def at(self, t: int, layer: int, part: np.ndarray) -> np.ndarray:
        """Return the maps (n, H, W) of some images at the t-th timestep, from 0 to 1 in each."""
        chosen = self.maps[part, t]
        return stretched(enlarged(chosen.mean(1) if layer == ALL else chosen[:, layer], self.masks.shape[1:]))

    @cached_property
    def shown(self) -> dict[tuple[int, int], Shown]:
        """Every timestep with every layer, and with the mean of all layers."""
        validation, test, found = self.split.validation, self.split.test, {}
        for t in range(self.maps.shape[1]):
            for layer in (ALL, *range(self.maps.shape[2])):
                maps = self.at(t, layer, validation)
                threshold = best_threshold(maps, self.masks[validation])
                met = float(overlaps(maps > threshold, self.masks[validation]).mean())
                maps = self.at(t, layer, test)
                overlap = overlaps(maps > threshold, self.masks[test])
                found[t, layer] = Shown(t, layer, threshold, met, pointed(maps, self.masks[test]), overlap)
        return found

    def best(self, single: bool) -> Shown:
        """Return what the validation images choose: the timestep, and among single layers the layer too."""
        fit = [each for each in self.shown.values() if (each.layer == ALL) != single]
        return max(fit, key=lambda each: each.validation)


def findings(
    words: Mapping[str, Maps],
    pyramids: Mapping[tuple[str, str], Segmented],
    pictures: np.ndarray,
    masks: np.ndarray,
    names: Sequence[str],
    timesteps: Sequence[int],
    layers: Sequence[str],
    t: int,
) -> Findings:
    """Return all that is written down and drawn.

    words: maps by source. pyramids: by what they read and source. pictures, masks, names: of the test images. layers:
    the names of the maps' layers. t: the pyramid's timestep.
    """
    layers = [each.replace(".transformer_blocks.0", "").removesuffix(".attn2").removesuffix(".attn") for each in layers]
    best = {source: (each.best(False), each.best(True)) for source, each in words.items()}
    found: dict[str, dict[str, Mean | Share]] = {
        "map_pointing": {source: Share(mean.pointing) for source, (mean, _) in best.items()},
        "map_iou": {source: Mean(mean.overlap) for source, (mean, _) in best.items()},
        "layer_iou": {source: Mean(single.overlap) for source, (_, single) in best.items()},
    }
    for (what, source), each in pyramids.items():
        found.setdefault(f"pyramid_iou@{what}", {})[source] = Mean(each.overlap)
    where = {
        source: (_named(mean, timesteps, layers), _named(one, timesteps, layers))
        for source, (mean, one) in best.items()
    }
    metrics = list[Metric]()
    for name, by_source in found.items():
        for source, estimate in by_source.items():
            told: dict[str, Any] = {"what": WHAT[name]}
            if name.startswith("pyramid"):
                told["ceiling"] = pyramids[name.removeprefix("pyramid_iou@"), source].ceiling
                told |= {} if source in (WORD, OTHER_WORD, PIXELS, PLACE) else {"t": t}
            elif source != CENTRE:
                told |= where[source][name == "layer_iou"]
            compared = (NETWORK, WORD) if name.startswith("pyramid") else (NETWORK,)
            others = {other: each for other, each in by_source.items() if other != source and source in compared}
            metrics.append(metric(name, source, estimate, len(names), True, told, others))
    views = _views(words, found, timesteps, layers)
    views.append(_pictures(words[NETWORK], best[NETWORK][1], pyramids["object", NETWORK], pictures, masks, names))
    said = _verdict(found, where[NETWORK][1], pyramids["object", NETWORK].ceiling)
    return Findings(_table(words, found, timesteps, layers), metrics, views, said)


def _named(shown: Shown, timesteps: Sequence[int], layers: Sequence[str]) -> dict[str, str | int | float]:
    layer = "all" if shown.layer == ALL else layers[shown.layer]
    return {"t": int(timesteps[shown.t]), "layer": layer, "threshold": shown.threshold}


def _table(
    words: Mapping[str, Maps],
    found: Mapping[str, Mapping[str, Mean | Share]],
    timesteps: Sequence[int],
    layers: Sequence[str],
) -> pd.DataFrame:
    """Return what is told, and below it every map at every timestep and layer."""
    rows = [
        (name, source, "", "", *estimated(each), each.value)
        for name, all_ in found.items()
        for source, each in all_.items()
    ]
    for source, maps in words.items():
        for shown in maps.shown.values() if source != CENTRE else ():
            at = _named(shown, timesteps, layers)
            for name, each in (("pointing", Share(shown.pointing)), ("iou", Mean(shown.overlap))):
                rows.append((name, source, str(at["t"]), str(at["layer"]), *estimated(each), shown.validation))
    return pd.DataFrame(rows, columns=["metric", "source", "t", "layer", "value", "low", "high", "validation"])


def _views(
    words: Mapping[str, Maps],
    found: Mapping[str, Mapping[str, Mean | Share]],
    timesteps: Sequence[int],
    layers: Sequence[str],
) -> list[View]:
    titles = {
        "map_pointing": "Word maps: the highest point lies in the object",
        "map_iou": "Word maps, mean of all layers: overlap with the true mask",
        "layer_iou": "Word maps, the best layer: overlap with the true mask",
        "pyramid_iou@object": "Linear classifier of positions, object or background: overlap",
        "pyramid_iou@class": "Linear classifier of positions, classes and background: overlap",
    }
    views: list[View] = []
    for name, title in titles.items():
        bands = np.array([estimated(each) for each in found[name].values()], float)
        said = MAPS if name in ("map_pointing", "map_iou", "layer_iou") else READ
        views.append(Bars(title, list(found[name]), bands[:, 0], bands[:, 1], bands[:, 2], None, said))
    own = [source for source in (NETWORK, OTHER_WORD, UNTRAINED, CENTRE) if source in words]
    bands = np.array(
        [
            [
                estimated(Mean(words[source].shown[min(t, words[source].maps.shape[1] - 1), ALL].overlap))
                for t in range(len(timesteps))
            ]
            for source in own
        ],
        float,
    )
    value, low, high = np.moveaxis(bands, 2, 0)
    views.append(
        Lines(
            "Word maps over timesteps",
            "timestep",
            [int(t) for t in timesteps],
            own,
            value,
            low,
            high,
            "overlap, mean of all layers",
        )
    )
    grid = np.array(
        [[words[NETWORK].shown[t, n].overlap.mean() for t in range(len(timesteps))] for n in range(len(layers))]
    )
    views.append(
        Matrix(
            "Which layer's word map finds the object",
            layers,
            [f"t = {t}" for t in timesteps],
            grid,
            False,
            "overlap on test images",
        )
    )
    return views


def _pictures(
    maps: Maps, best: Shown, pyramid: Segmented, pictures: np.ndarray, masks: np.ndarray, names: Sequence[str]
) -> Pictures:
    """Show the first test image of each of the first classes."""
    rows = [names.index(name) for name in dict.fromkeys(names)][:SHOWN]
    heat = maps.at(best.t, best.layer, maps.split.test)[rows]
    grey = [heat, masks[rows], heat > best.threshold, pyramid.masks[rows]]
    shown = [pictures[rows], *(np.repeat(np.asarray(255 * each, np.uint8)[..., None], 3, -1) for each in grey)]
    columns = ["image", "word map", "true mask", "by the map", "by the pyramid"]
    note = "the first test image of some classes; the word map of the best layer"
    return Pictures("What is found", [names[row] for row in rows], columns, np.stack(shown, 1), note)


def _verdict(
    found: Mapping[str, Mapping[str, Mean | Share]], at: Mapping[str, str | int | float], ceiling: float
) -> dict[str, str]:
    names = ("map_iou", "layer_iou", "pyramid_iou@object", "pyramid_iou@class")
    maps, one, whole, kinds = ({source: each.value for source, each in found[name].items()} for name in names)
    layer, read, classes = (found[name] for name in names[1:])
    return {
        "word maps": f"overlap {maps[NETWORK]:.2f}; {maps[OTHER_WORD]:.2f} by another word, {maps[UNTRAINED]:.2f} with "
        f"random weights, {maps[CENTRE]:.2f} by the centre alone.",
        "the best layer": f"{one[NETWORK]:.2f} ({at['layer']} at t = {at['t']}): "
        f"{_against(layer[NETWORK], layer[OTHER_WORD])} another word ({one[OTHER_WORD]:.2f}), "
        f"{_against(layer[NETWORK], layer[CENTRE])} the centre alone.",
        "pyramid": f"object or background: overlap {whole[NETWORK]:.2f} of at most {ceiling:.2f}; pixels "
        f"{whole[PIXELS]:.2f}, noisy latent {whole[LATENT]:.2f}, place alone {whole[PLACE]:.2f}, random weights "
        f"{whole[UNTRAINED]:.2f}.",
        "word maps, read": f"the same classifier of the word maps: {whole[WORD]:.2f}, of another word's "
        f"{whole[OTHER_WORD]:.2f}: {_against(read[WORD], read[OTHER_WORD])} another word, "
        f"{_against(read[WORD], read[PLACE])} the place alone.",
        "pyramid, classes": f"overlap {kinds[NETWORK]:.2f}; pixels {kinds[PIXELS]:.2f}, noisy latent "
        f"{kinds[LATENT]:.2f}: {_against(classes[NETWORK], classes[PIXELS])} the pixels.",
    }


def _against(one: Mean | Share, other: Mean | Share) -> str:
    """Return how one compares with the other on the same images."""
    _, low, high = one.change(other)  # type: ignore[arg-type]  # both of one kind
    if low is None or high is None:
        return "not told from"
    return "better than" if low > 0 else "worse than" if high < 0 else "not told from"
