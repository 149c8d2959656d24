"""A metric as results.json holds it: every variant's value, and its change on the same images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from cad_exp.evaluation.intervals.estimate import Estimate, estimated
from cad_exp.utils.hashing import digest

LISTED = 20  # prompts that a definition lists; of a larger set it gives their number and hash
AGAINST = {"edited": ("unedited", "random"), "random": ("unedited",)}  # what a variant's change is told against
# Shares of images, blank or outside the world, above which a rate carries a warning.
MOSTLY, MORE = 0.5, 0.1  # of the unedited model; of an edited one, beyond the unedited one's share

Sample = tuple[Estimate, pd.DataFrame]  # what is estimated, and the rows of its images


def compared(
    name: str,
    samples: Mapping[str, Sample],
    higher: bool | None,
    definition: dict[str, Any] | Mapping[str, dict[str, Any]],
    rate: bool = False,
) -> Iterator[dict[str, Any]]:
    """Yield one metric of every variant, with its change against the others.

    samples: variant -> estimate and its images. definition: of all variants, or variant -> its own. rate: whether it
    is a share of what images show, which says little where most of them show nothing (`warning` in the definition).
    """
    for variant, (estimate, rows) in samples.items():
        value, low, high = estimated(estimate)
        plain = samples["unedited"][1] if variant != "unedited" and "unedited" in samples else None
        own = definition.get(variant, definition)
        yield {
            "name": name,
            "variant": variant,
            "value": value,
            "low": low,
            "high": high,
            "n": len(rows),
            "higher_is_better": higher,
            "definition": {
                **own,
                "interval": estimate.words,
                **_images(rows),
                **(_warning(rows, plain) if rate else {}),
            },
            "changes": _changes(variant, samples),
        }


def metric(
    name: str,
    variant: str,
    estimate: Estimate,
    n: int,
    higher: bool | None,
    definition: dict[str, Any],
    others: Mapping[str, Any],
) -> dict[str, Any]:
    """Return one metric as `reporting.results.Results.add` takes it. others: name -> another dictionary's estimate."""
    value, low, high = estimated(estimate)
    changes = {}
    for other, before in others.items():
        change, least, most = estimate.change(before)
        changes[other] = {"value": change, "low": least, "high": most, "interval": estimate.change_words}
    return {
        "name": name,
        "variant": variant,
        "value": value,
        "low": low,
        "high": high,
        "n": n,
        "higher_is_better": higher,
        "definition": {**definition, "interval": estimate.words},
        "changes": changes,
    }


def _changes(variant: str, samples: Mapping[str, Sample]) -> dict[str, dict[str, Any]]:
    """Return the paired change against each other variant that has the same images."""
    estimate, rows = samples[variant]
    changes = {}
    for other in AGAINST.get(variant, ()):
        if other in samples and _alike(rows, samples[other][1]):
            value, low, high = estimate.change(samples[other][0])
            changes[other] = {"value": value, "low": low, "high": high, "interval": estimate.change_words}
    return changes


def _alike(rows: pd.DataFrame, others: pd.DataFrame) -> bool:
    """Return whether these are images of the same prompts and seeds, in the same order."""
    asked = ["prompt", "seed"]
    return len(rows) == len(others) and np.array_equal(rows[asked].to_numpy(), others[asked].to_numpy())


def _images(rows: pd.DataFrame) -> dict[str, Any]:
    """Return which prompts and seeds these are.

    Prompts: all, or the first LISTED with the number and the hash of all, in their order.
    """
    different = list(dict.fromkeys(rows["prompt"]))
    listed: dict[str, Any] = {"prompts": different[:LISTED]}
    if len(different) > LISTED:
        listed |= {"prompts_number": len(different), "prompts_hash": digest(different)}
    return listed | {"seeds": {"first": int(rows["seed"].min()), "last": int(rows["seed"].max())}}


def _warning(rows: pd.DataFrame, plain: pd.DataFrame | None) -> dict[str, str]:
    """Return a sentence where many of these images are of one colour, or like nothing in the world.

    plain: the unedited model's, of which some lie outside too; None: these are the unedited ones.
    """
    said = []
    for column, what in (("blank", "of one colour"), ("outside", "unlike anything in the world")):
        found: pd.Series[float] | list[float] = rows[column].dropna() if column in rows else []
        most = MOSTLY if plain is None else MORE + (plain[column].mean() if column in plain else 0)
        if len(found) and np.mean(found) > most:
            said.append(f"{int(np.sum(found))} of {len(found)} images are {what}")
    return {"warning": " and ".join(said)} if said else {}
