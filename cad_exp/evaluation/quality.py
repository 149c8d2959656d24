"""Image quality: FID and KID, CLIP score and perceptual distances of the images that an edit should leave alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from cad_exp.evaluation.distances import KID_SUBSET, Statistics, frechet_estimate, kernel_estimate
from cad_exp.evaluation.intervals.images import Mean
from cad_exp.evaluation.intervals.labels import Means
from cad_exp.evaluation.measured import Sample, compared
from cad_exp.evaluation.metric import Metric, Metrics
from cad_exp.evaluation.records import Records

ENOUGH = 2048  # images below which FID in 2,048 dimensions says more of their number than of their quality
FEW = 200  # images below which KID may well be negative


class Quality(Metric):
    """fid, kid, clip_score and the distances on the retention images, as far as there are judges for them."""

    name, looks_at, asks = "quality", ("retention",), ("features", "clip", "distance")

    def measure(self, records: Records, settings: dict[str, Any]) -> Metrics:
        """Yield fid, kid, clip_score and the distances, as far as there are judges for them."""
        if "features" in records.definitions:
            yield from _distributions(records, settings)
        found = _rows(records, "clip_score")
        samples = {variant: (Mean(rows["clip_score"].to_numpy()), rows) for variant, rows in found}
        what = {"what": "cosine of image and prompt, -1..1"}
        yield from compared("clip_score", samples, True, records.definitions.get("clip", {}) | what)
        yield from distances(records)


def _rows(records: Records, column: str) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield each variant with its retention images that have a value in this column, where there are any."""
    for variant in records.variants:
        rows = records.rows(variant, "retention")
        rows = rows[rows[column].notna()] if column in rows else rows[:0]
        if len(rows):
            yield variant, rows


def distances(records: Records) -> Iterator[dict[str, Any]]:
    """Yield perceptual_distance (mean), _worst (the label that changed most) and _other_seed of retention images.

    The last belongs to the unedited model: what lies between two of its images of one prompt, and so the scale on which
    to read the others.
    """
    who, column = records.definitions.get("distance", {}), "perceptual_distance"
    found = dict(_rows(records, column))
    to = "perceptual distance to the unedited image of the same prompt and seed"
    samples: dict[str, Sample] = {variant: (Mean(rows[column].to_numpy()), rows) for variant, rows in found.items()}
    yield from compared(column, samples, False, who | {"what": f"mean {to}"})
    samples = {variant: (_by_label(rows, column), rows) for variant, rows in found.items() if variant != "unedited"}
    yield from compared(f"{column}_worst", samples, False, who | {"what": f"highest mean over labels of the {to}"})
    samples = {
        variant: (Mean(rows["other_seed"].to_numpy()), rows)
        for variant, rows in _rows(records, "other_seed")
        if variant == "unedited"
    }
    what = "mean perceptual distance of two images of the same prompt with different seeds; every image in one pair"
    yield from compared(f"{column}_other_seed", samples, None, who | {"what": what})


def _by_label(rows: pd.DataFrame, column: str) -> Means:
    groups = rows.groupby(["kind", "label"], sort=False).indices.values()
    return Means([rows[column].to_numpy()[index] for index in groups], worst=True)


def _distributions(records: Records, settings: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield fid and kid to the reference, or fid_to_unedited and kid_to_unedited where there is none."""
    suffix = "" if records.reference is not None else "_to_unedited"
    fid: dict[str, Sample] = {}
    kid: dict[str, Sample] = {}
    told: dict[str, Any] = {}
    for variant in records.variants:
        rows, reference = records.rows(variant, "retention"), records.reference
        if len(rows) < 2 or (variant == "unedited" and reference is None):
            continue
        features = records.features[rows.index.to_numpy()]
        if reference is None:
            reference = records.features[records.rows("unedited", "retention").index.to_numpy()]
        told = _told(records, reference, features)
        fid[variant] = frechet_estimate(reference, features, settings["fid_bootstrap"]), rows
        if not isinstance(reference, Statistics):  # the kernel needs every image
            kid[variant] = kernel_estimate(reference, features), rows
    if fid:
        few = _few(told["n"], told["reference_n"], told["features"])
        about = {key: value for key, value in told.items() if key != "n"}
        what = "Frechet distance of the features (torchmetrics)" + few
        yield from compared(f"fid{suffix}", fid, False, about | {"what": what})
    if kid:
        least = min(told["n"], told["reference_n"])
        size = min(KID_SUBSET, least)
        what = f"kernel distance (squared MMD, cubic kernel) of the features (torchmetrics), subsets of {size}"
        what += "" if least >= FEW else f"; only {least} images: it may be negative, which says 0"
        yield from compared(f"kid{suffix}", kid, False, about | {"what": what, "subset_size": size})


def _told(records: Records, reference: np.ndarray | Statistics, features: np.ndarray) -> dict[str, Any]:
    """Return what is compared with what."""
    return {
        **records.definitions["features"],
        "n": len(features),
        "reference": records.reference_is or "the unedited model's images of the same prompts and seeds",
        "reference_n": reference.number if isinstance(reference, Statistics) else len(reference),
        "features": int(features.shape[1]),
    }


def _few(n: int, reference: int | None, features: int) -> str:
    """Return a warning where there are too few images for FID to be compared with other people's."""
    least = min(n, reference or n)
    if least > max(ENOUGH, features):
        return "; comparable only at equal n"
    return f"; biased upwards (only {least} images in {features} dimensions): comparable only at equal n"
