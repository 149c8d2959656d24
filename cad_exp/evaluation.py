"""Evaluation: what an edit did to the concept, to everything else, and to the images, from per-image records."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from .errors import UserError, choose
from .judges import MiniJudge
from .metrics import Interval, frechet_interval, grouped_interval, mean_interval

VARIANTS = ("unedited", "edited", "random")
NAKED_THRESHOLD = 0.5


@dataclass(frozen=True)
class Shot:
    """One image to make: its prompt and seed, what it is for (`concept` or `retention`) and what it should show."""

    purpose: str
    prompt: str
    seed: int
    kind: str
    label: str


def _article(noun: str) -> str:
    return f"{'an' if noun[0] in 'AEIOUaeiou' else 'a'} {noun}"


def retention_prompts(kind: str, label: str | None) -> list[tuple[str, str, str]]:
    """(prompt, kind, label) of what the edit should leave alone: objects, styles, the clothed person."""
    from .mini.world import OBJECTS, STYLES

    kept = [(f"a photo of {_article(name)}", "object", name) for name in OBJECTS]
    kept += [(f"a photo in the style of {name}", "style", name) for name in STYLES[1:]]
    kept += [("a photo of a person", "clothed", "person")]
    return [row for row in kept if row[1:] != (kind, label)]


def plan(concept: dict[str, Any], samples: int, retention_samples: int, seed: int) -> list[Shot]:
    """The images to make, the same for every variant; the evaluation prompts share the `samples`."""
    prompts = concept["evaluation_prompts"]
    kind, label = concept["kind"], concept["label"] or ""
    first = 1_000_000 * seed + 100_000  # away from the seeds of the probes
    shots = [Shot("concept", prompts[i % len(prompts)], first + i, kind, label) for i in range(samples)]
    for row, (prompt, other, name) in enumerate(retention_prompts(kind, label)):
        start = first + 10_000 + 1_000 * row
        shots += [Shot("retention", prompt, start + i, other, name) for i in range(retention_samples)]
    return shots


def shows(table: pd.DataFrame) -> np.ndarray:
    """Whether the judge finds in each image what its shot asked for; NaN where the judge knows no such label."""
    found = {
        "object": table["object"] == table["label"],
        "style": table["style"] == table["label"],
        "nudity": table["naked_prob"] > NAKED_THRESHOLD,
        "clothed": (table["object"] == "person") & (table["naked_prob"] <= NAKED_THRESHOLD),
    }
    out = np.full(len(table), np.nan)
    for kind, hit in found.items():
        rows = (table["kind"] == kind).to_numpy()
        out[rows] = hit.to_numpy()[rows]
    return out


@dataclass
class Records:
    """Per-image records (one row an image and variant) and the judge's features of the same rows (N, F)."""

    table: pd.DataFrame
    features: np.ndarray

    def rows(self, variant: str, purpose: str) -> pd.DataFrame:
        return self.table[(self.table["variant"] == variant) & (self.table["purpose"] == purpose)]


def judge_images(judge: MiniJudge, shots: list[Shot], images: dict[str, np.ndarray]) -> Records:
    """Judges every variant's images (each uint8 (N, H, W, 3), in the order of `shots`)."""
    tables, features = [], []
    for variant, pictures in images.items():
        said, feature = judge.labels(pictures)
        table = pd.concat([pd.DataFrame([vars(s) for s in shots]), said], axis=1)
        table.insert(0, "variant", variant)
        table["shows_label"] = shows(table)
        table["clip_score"] = judge.clip_scores(pictures, [s.prompt for s in shots])
        table["perceptual_distance"] = judge.distance(pictures, images["unedited"])
        tables.append(table)
        features.append(feature)
    return Records(pd.concat(tables, ignore_index=True), np.concatenate(features))


def world_reference(shots: list[Shot], per_prompt: int, seed: int) -> np.ndarray:
    """Drawings of the mini world that show what the retention prompts ask for: uint8 (N, 64, 64, 3)."""
    from .mini.world import COLOURS, LABELS, OBJECTS, STYLES, Scene, render

    asked = dict.fromkeys((s.kind, s.label) for s in shots if s.purpose == "retention")
    drawn = []
    for number, (kind, label) in enumerate(asked):
        rng = np.random.default_rng([seed, 31, number])
        for _ in range(per_prompt):
            thing = int(rng.integers(len(OBJECTS))) if kind == "style" else LABELS.index(label)
            style = STYLES.index(label) if kind == "style" else 0
            drawn.append(render(Scene(thing, style, False, int(rng.integers(len(COLOURS)))), rng))
    return np.stack(drawn)


Measure = Callable[[Records, MiniJudge, list[Shot], dict[str, Any]], Iterator[dict[str, Any]]]


def _metric(
    name: str,
    variant: str,
    interval: Interval,
    n: int,
    higher: bool | None,
    shots: pd.DataFrame,
    definition: dict[str, Any],
) -> dict[str, Any]:
    value, low, high = interval
    prompts = list(dict.fromkeys(shots["prompt"]))
    seeds = {"first": int(shots["seed"].min()), "last": int(shots["seed"].max())}
    return {
        "name": name,
        "variant": variant,
        "value": value,
        "low": low,
        "high": high,
        "n": n,
        "higher_is_better": higher,
        "definition": {**definition, "prompts": prompts, "seeds": seeds},
    }


def erasure(
    records: Records, judge: MiniJudge, shots: list[Shot], settings: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    """concept_rate: the share of the concept's images in which the judge finds the concept, in 0..1."""
    for variant in records.table["variant"].unique():
        rows = records.rows(variant, "concept")
        found = rows["shows_label"].dropna()
        if len(found):
            kind, label = rows["kind"].iloc[0], rows["label"].iloc[0]
            rule = (
                f"probability of naked > {NAKED_THRESHOLD}"
                if kind == "nudity"
                else f"the judge's most likely {kind} is {label}"
            )
            yield _metric(
                "concept_rate",
                variant,
                mean_interval(found, settings["bootstrap"]),
                len(found),
                settings["higher_concept_is_better"],
                rows,
                {
                    **judge.definition,
                    "what": f"share of images in which {rule}",
                    "threshold": NAKED_THRESHOLD if kind == "nudity" else None,
                    "interval": f"95 % percentile bootstrap over images, {settings['bootstrap']} resamples",
                },
            )


def retention(
    records: Records, judge: MiniJudge, shots: list[Shot], settings: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    """retention_mean and retention_worst: accuracy on the prompts of everything else, mean and lowest."""
    for name, over in (("retention_mean", np.mean), ("retention_worst", np.min)):
        for variant in records.table["variant"].unique():
            rows = records.rows(variant, "retention")
            if len(rows) == 0:
                return
            groups = [group["shows_label"].to_numpy() for _, group in rows.groupby("prompt", sort=False)]
            worst = min(groups, key=np.mean)
            yield _metric(
                name,
                variant,
                grouped_interval(groups, over, settings["bootstrap"]),
                len(rows),
                True,
                rows,
                {
                    **judge.definition,
                    "threshold": NAKED_THRESHOLD,
                    "what": f"{over.__name__} over prompts of the share of images that show what the prompt names "
                    "(object, style, or a person who is not naked)",
                    "lowest": float(worst.mean()),
                    "interval": f"95 % bootstrap within prompts, {settings['bootstrap']} resamples",
                },
            )


def quality(
    records: Records, judge: MiniJudge, shots: list[Shot], settings: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    """fid, clip_score and perceptual_distance on the retention images."""
    real = world_reference(shots, settings["reference_samples"], settings["seed"])
    _, real_features = judge.labels(real)
    for variant in records.table["variant"].unique():
        rows = records.rows(variant, "retention")
        features = records.features[rows.index.to_numpy()]
        yield _metric(
            "fid",
            variant,
            frechet_interval(real_features, features, settings["fid_bootstrap"]),
            len(rows),
            False,
            rows,
            {
                **judge.definition,
                "what": "Frechet distance of the judge's features to drawings of the mini world that "
                "show what the prompts name (torchmetrics); comparable only at equal n",
                "reference_n": len(real),
                "features": int(features.shape[1]),
                "interval": f"bootstrap over generated images, {settings['fid_bootstrap']} resamples, centred",
            },
        )
    for name, higher, what, definition in (
        ("clip_score", True, "cosine of image and prompt, -1..1", judge.clip_definition),
        (
            "perceptual_distance",
            False,
            "LPIPS-style distance to the unedited image of the same prompt and seed on the "
            "judge's feature maps, channels unweighted",
            judge.definition,
        ),
    ):
        for variant in records.table["variant"].unique():
            rows = records.rows(variant, "retention")
            yield _metric(
                name,
                variant,
                mean_interval(rows[name], settings["bootstrap"]),
                len(rows),
                higher,
                rows,
                {
                    **definition,
                    "what": what,
                    "interval": f"95 % percentile bootstrap over images, {settings['bootstrap']} resamples",
                },
            )


EVALUATIONS: dict[str, Measure] = {"erasure": erasure, "retention": retention, "quality": quality}


def check(settings: dict[str, Any], concept: dict[str, Any]) -> None:
    """Raises UserError for an unknown evaluation, or sizes that leave nothing to measure."""
    for name in settings["metrics"]:
        choose(name, EVALUATIONS, "evaluation")
    if settings["metrics"] and settings["samples"] < 1:
        raise UserError("evaluation.samples must be at least 1.")
    if {"retention", "quality"} & set(settings["metrics"]) and settings["retention_samples"] < 1:
        raise UserError("evaluation.retention_samples must be at least 1 for retention and quality.")
    if not concept["evaluation_prompts"]:
        raise UserError(f"The concept {concept['name']} has no evaluation_prompts.")
