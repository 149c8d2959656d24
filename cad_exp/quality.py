"""Image quality: FID and KID, CLIP score and perceptual distance of the images that an edit should leave alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from .identity import digest
from .metrics import KID_SUBSET, Interval, Statistics, frechet_interval, kernel_interval, mean_interval
from .records import Records

LISTED = 20  # prompts that a definition lists; of a larger set it gives their number and hash
ENOUGH = 2048  # images below which FID in 2,048 dimensions says more of their number than of their quality


def measured(
    name: str,
    variant: str,
    interval: Interval,
    n: int,
    higher: bool | None,
    shots: pd.DataFrame,
    definition: dict[str, Any],
    how: int | str,
) -> dict[str, Any]:
    """A metric as results.json holds it. how: the interval in words, or the resamples of a bootstrap over images."""
    value, low, high = interval
    if isinstance(how, int):
        how = f"95 % percentile bootstrap over images, {how} resamples"
    seeds = {"first": int(shots["seed"].min()), "last": int(shots["seed"].max())}
    return {
        "name": name,
        "variant": variant,
        "value": value,
        "low": low,
        "high": high,
        "n": n,
        "higher_is_better": higher,
        "definition": {
            **definition,
            "interval": how,
            **_prompts(list(dict.fromkeys(shots["prompt"]))),
            "seeds": seeds,
        },
    }


def _prompts(different: list[str]) -> dict[str, Any]:
    """Which prompts: all of them, or the first LISTED with the number and the hash of all, in their order."""
    listed = {"prompts": different[:LISTED]}
    if len(different) <= LISTED:
        return listed
    return listed | {"prompts_number": len(different), "prompts_hash": digest(different)}


def quality(records: Records, settings: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """fid, kid, clip_score and perceptual_distance on the retention images, as far as there are judges for them."""
    if "features" in records.definitions:
        yield from _distributions(records, settings)
    for name, who, higher, what in (
        ("clip_score", "clip", True, "cosine of image and prompt, -1..1"),
        (
            "perceptual_distance",
            "distance",
            False,
            "perceptual distance to the unedited image of the same prompt and seed",
        ),
    ):
        for variant in records.variants:
            rows = records.rows(variant, "retention")
            rows = rows[rows[name].notna()]
            if len(rows):
                found, definition = mean_interval(rows[name], settings["bootstrap"]), records.definitions[who]
                definition = definition | {"what": what}
                yield measured(name, variant, found, len(rows), higher, rows, definition, settings["bootstrap"])


def _distributions(records: Records, settings: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """fid and kid to the reference, or fid_to_unedited and kid_to_unedited where there is none."""
    suffix = "" if records.reference is not None else "_to_unedited"
    for variant in records.variants:
        rows, reference = records.rows(variant, "retention"), records.reference
        if len(rows) < 2 or (variant == "unedited" and reference is None):
            continue
        features = records.features[rows.index.to_numpy()]
        if reference is None:
            reference = records.features[records.rows("unedited", "retention").index.to_numpy()]
        number = reference.number if isinstance(reference, Statistics) else len(reference)
        told = {
            **records.definitions["features"],
            "reference": records.reference_is or "the unedited model's images of the same prompts and seeds",
            "reference_n": number,
            "features": int(features.shape[1]),
        }
        resamples = settings["fid_bootstrap"]
        yield measured(
            f"fid{suffix}",
            variant,
            frechet_interval(reference, features, resamples),
            len(rows),
            False,
            rows,
            told | {"what": "Frechet distance of the features (torchmetrics)" + _few(len(rows), number, features)},
            f"bootstrap over generated images, {resamples} resamples, centred",
        )
        if not isinstance(reference, Statistics):  # the kernel needs every image
            size = min(KID_SUBSET, len(reference), len(features))
            what = f"kernel distance (squared MMD, cubic kernel) of the features (torchmetrics), subsets of {size}"
            yield measured(
                f"kid{suffix}",
                variant,
                kernel_interval(reference, features),
                len(rows),
                False,
                rows,
                told | {"what": what, "subset_size": size},
                "95 %, normal, delete-one jackknife over generated images",
            )


def _few(n: int, reference: int | None, features: np.ndarray) -> str:
    """A warning where there are too few images for FID to be compared with other people's."""
    least = min(n, reference or n)
    if least > max(ENOUGH, features.shape[1]):
        return "; comparable only at equal n"
    return f"; biased upwards (only {least} images in {features.shape[1]} dimensions): comparable only at equal n"
