"""What people call a metric, a number, a granularity or a warning on the terminal, in reports, tables and pictures."""

from __future__ import annotations

import re
from typing import Any

LABELS = {
    "concept_rate": "concept rate",
    "retention_mean": "retention, mean",
    "retention_worst": "retention, worst",
    "drawn": "drawn instead",
    "blank_images": "blank images",
    "outside_world": "outside the world",
    "blank_images_retention": "blank, others",
    "outside_world_retention": "outside, others",
    "style_distance": "style, distance",
    "style_distance_retention": "other styles, distance",
    "nudity_detections": "exposed parts found",
    "fid": "FID",
    "fid_to_unedited": "FID to unedited",
    "kid": "KID",
    "kid_to_unedited": "KID to unedited",
    "clip_score": "CLIP score",
    "perceptual_distance": "distance, others",
    "perceptual_distance_worst": "distance, worst",
    "perceptual_distance_other_seed": "distance, other seed",
}
AT_TIMESTEPS = ("accuracy", "gain", "distance", "layers")  # metrics whose name may end in a timestep
FEATURES = {
    "fvu": "variance left (FVU)",
    "fvu_seeds": "FVU, mean of seeds",
    "dead": "dead latents",
    "l0": "latents a token (L0)",
    "loss_recovered": "loss recovered",
    "purity": "purity",
    "f1": "best latent's F1",
    "split_latents": "latents of a class",
    "absorption": "absorbed images",
    "shared_latents": "shared latents",
}
PREDICTED = {
    "fidelity": "sums of scores",
    "second_order": "with interactions",
}  # what metrics of predictions begin with
AGREEMENTS = {"pearson": "correlation", "spearman": "rank correlation", "slope": "slope", "sign": "sign", "r2": "R²"}
AGREEMENTS |= {"bias": "bias"}
_OF_SCORES = re.compile(rf"({'|'.join(PREDICTED)})_({'|'.join(AGREEMENTS)})(?:_(top|single))?(?:@([\d.e-]+))?")
_OF_STABILITY = re.compile(r"stability_(?:(spearman)|overlap@([\d.]+))")
_UNITS = {"head": "attention heads", "layer": "whole layers"}


def units(granularity: str) -> str:
    """Return what several components of a granularity are called."""
    return _UNITS.get(granularity, f"{granularity}s")


def number(value: float | None) -> str:
    """Three decimals below 10, one from there on; "-" for nothing."""
    if value is None or value != value:
        return "-"
    return f"{value:z.3f}" if abs(value) < 10 else f"{value:z.1f}"


def label(name: str) -> str:
    """Return what people call a metric: "concept_rate@0.5" is "concept rate, 0.5", "distance@100" at a timestep."""
    kind, *parts = name.split("@")
    said = LABELS.get(name) or LABELS.get(kind) or FEATURES.get(kind) or kind.replace("_", " ")
    if name in LABELS:
        return said
    timed = kind in AT_TIMESTEPS
    return ", ".join([said, *(f"t = {part}" if timed and part.isdigit() else part for part in parts)])


def predicted(name: str) -> bool:
    """Return whether a metric is of predictions of ablations: "fidelity_sign@0.05", "second_order_r2_top@0.2"."""
    return name.startswith(tuple(f"{kind}_" for kind in PREDICTED))


def of_scores(name: str, relative: bool = False) -> str:
    """Return what people call a metric of the scores: "fidelity_sign@0.05" is "sums of scores: sign, 5 % off".

    relative: whether it is a share of the true changes.
    """
    if stable := _OF_STABILITY.fullmatch(name):
        return "stability: rank correlation" if stable[1] else f"stability: top {100 * float(stable[2]):.3g} % shared"
    found = _OF_SCORES.fullmatch(name)
    if found is None:
        return label(name)
    by, what, kind, rate = found.groups()
    told = f"{PREDICTED[by]}: {'relative ' if relative else ''}{AGREEMENTS[what]}"
    if kind == "single":
        return f"{told}, one off at a time"
    off = f"{100 * float(rate):.3g} %" if rate else "some"
    return f"{told}, {off}{' of the best' if kind == 'top' else ''} off"


def warnings_of(metrics: list[dict[str, Any]]) -> list[str]:
    """Return what the marks of a table mean: one plain sentence for each warning, with the variants that it is of."""
    said: dict[str, dict[str, list[str]]] = {}
    for metric in metrics:
        if warning := metric["definition"].get("warning"):
            name = label(metric["name"])
            said.setdefault(warning, {}).setdefault(metric["variant"], []).append(name)
    found = []
    for warning, by_variant in said.items():
        alike: dict[tuple[str, ...], list[str]] = {}
        for variant, names in by_variant.items():
            alike.setdefault(tuple(names), []).append(variant)
        found += [
            f"* {', '.join(variants)}: {warning}, so little can be read from {'; '.join(names)}"
            for names, variants in alike.items()
        ]
    return found


def drawn_instead(metrics: list[dict[str, Any]], most: int = 4) -> str:
    """Return what the edited model draws where it was asked for the concept: "garbage truck 45 %, gas pump 20 %".

    Returns "" where nothing was told apart.
    """
    found = {
        metric["name"].removeprefix("drawn@"): metric["value"]
        for metric in metrics
        if metric["name"].startswith("drawn@") and metric["variant"] == "edited" and metric["value"]
    }
    order = sorted(found, key=found.__getitem__, reverse=True)
    parts = [f"{name} {100 * found[name]:.0f} %" for name in order[:most]]
    if len(order) > most:
        parts.append(f"others {100 * sum(found[name] for name in order[most:]):.0f} %")
    return ", ".join(parts)
