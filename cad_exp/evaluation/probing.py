"""How well probes read what an image shows: balanced accuracy with its interval, and the gain over a rival's.

Balanced accuracy is the mean over classes of the share of their test images that are read rightly; it is 1 / classes by
chance, however many images a class has. Rivals read the same test images, so the gain is paired. Where to read is
chosen by the validation images, and told for the test images.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from cad_exp.evaluation.intervals.labels import Shares
from cad_exp.evaluation.variants import FUSED, INPUTS, LATENT, NETWORK, SOURCES


def shares(right: np.ndarray, classes: np.ndarray) -> Shares:
    """Return balanced accuracy as an estimate with intervals.

    Args:
        right: (N,) whether each test image was read rightly.
        classes: (N,) its class; the order of the images is kept, so that two probes' changes are paired.
    """
    return Shares([np.asarray(right, float)[classes == each] for each in np.unique(classes)])


def metrics(table: pd.DataFrame, probe: str = "linear") -> Iterator[dict[str, Any]]:
    """Yield what results.json holds of a probe map (`pipeline.stages.probes.Row`). probe: the name of the classifier.

    For each label: `accuracy@LABEL` of every source, at the timestep and place that the network's validation images
    choose; the rivals at the same timestep, at their own best place. `accuracy@LABEL@T`, the same at each timestep.
    `gain@LABEL` and `gain@LABEL@T`: what the network adds to the noisy latent, where that is most on validation images.
    """
    for label, own in table.groupby("label", sort=False):
        best = chosen(own[own["source"] == NETWORK])
        yield from _accuracies(f"accuracy@{label}", probe, own, int(best["t"]))
        gained = chosen(own[own["source"] == NETWORK], gains(own))
        yield _metric(f"gain@{label}", probe, gained, "gain", 0.0)
        for t in sorted({int(each) for each in own["t"] if each >= 0}):
            then = own[(own["t"] == t) & (own["source"] == NETWORK)]
            yield from _accuracies(f"accuracy@{label}@{t}", probe, own, t, (NETWORK, LATENT))
            yield _metric(f"gain@{label}@{t}", probe, chosen(then), "gain", 0.0)


def gains(own: pd.DataFrame) -> pd.Series:
    """Return the validation accuracy of each row less that of the noisy latent at its timestep."""
    latent = own[own["source"] == LATENT].set_index("t")["validation"]
    return own["validation"] - own["t"].map(latent)


def chosen(rows: pd.DataFrame, by: pd.Series | None = None) -> pd.Series:
    """Return the row with the best validation accuracy, or the largest of `by`; of equals the first in the network."""
    values = rows["validation"] if by is None else by.loc[rows.index]
    return rows.iloc[int(values.to_numpy().argmax())]


def _accuracies(
    name: str, probe: str, own: pd.DataFrame, t: int, sources: tuple[str, ...] = SOURCES
) -> Iterator[dict[str, Any]]:
    for source in sources:
        rows = own[(own["source"] == source) & own["t"].isin((t, -1))]
        if not rows.empty:
            row = chosen(rows)
            yield _metric(name, probe, row, "accuracy", float(row["chance"]))


def _metric(name: str, probe: str, row: pd.Series, value: str, chance: float) -> dict[str, Any]:
    low, high = ("low", "high") if value == "accuracy" else (f"{value}_low", f"{value}_high")
    what = f"balanced accuracy of {_reader(row['source'], probe)} on test images"
    gained = f"{what}, less that of the noisy latent at the same timestep"
    interval = Shares([]).words if value == "accuracy" else Shares([]).change_words
    return {
        "name": name,
        "variant": row["source"],
        "value": float(row[value]),
        "low": _or_none(row[low]),
        "high": _or_none(row[high]),
        "n": int(row["n"]),
        "higher_is_better": True,
        "definition": {
            "what": what if value == "accuracy" else gained,
            "hookpoint": row["hookpoint"] or None,
            "t": int(row["t"]) if row["t"] >= 0 else None,
            "classes": int(row["classes"]),
            "chance": chance,
            "chosen": "place and timestep by validation images",
            "strength": float(row["strength"]),
            "interval": interval,
        },
        "changes": {},
    }


def _reader(source: str, probe: str) -> str:
    """Return in words which classifier read a source: fused features always a linear one, inputs the better of two."""
    if probe == "linear" or source == FUSED:
        return "a linear probe"
    named = f"{'an' if probe[0] in 'aeiou' else 'a'} {probe} probe"
    return f"the better of {named} and a linear one, by validation images," if source in INPUTS else named


def _or_none(value: Any) -> float | None:
    return None if value != value else float(value)


def verdict(table: pd.DataFrame) -> dict[str, str]:
    """Return for each label in words where it is read best, and where the network adds most to its input.

    Where even the best place is not surely better than chance, that is said in place of it.
    """
    told = {}
    for label, own in table.groupby("label", sort=False):
        network = own[own["source"] == NETWORK]
        best, gained = chosen(network), chosen(network, gains(own))
        place = f"at t = {int(best['t'])}, in {best['hookpoint']} ({best['accuracy']:.2f})"
        head = f"Read best {place}"
        if not best["low"] > best["chance"]:
            head = f"Not surely read better than by chance ({best['chance']:.2f}): best {place}"
        if gained["gain_low"] > 0:
            where = f"at t = {int(gained['t'])}, in {gained['hookpoint']} ({gained['gain']:+.2f})"
            told[str(label)] = f"{head}; the network adds most to its input {where}."
        else:
            told[str(label)] = f"{head}; no gain over its input can be told."
    return told
