"""What the fidelity studies found, as metrics of results.json: variant `attribution`, and all that pins it down."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from cad_exp.config.own_prompts import asks, words
from cad_exp.evaluation.fidelity.ablations import (
    KINDS,
    Progress,
    ablation_fidelity,
    check_rates,
    effects,
    negative_check,
    ordered_curves,
)
from cad_exp.evaluation.fidelity.playable import Playable, Predictor
from cad_exp.evaluation.fidelity.statistics import Bounded, agreement
from cad_exp.utils.errors import UserError, choose


def fidelity_metrics(
    game: Playable,
    scores: Tensor,
    settings: dict[str, Any],
    seed: int = 0,
    facts: dict[str, Any] | None = None,
    progress: Progress | None = None,
    prefix: str = "fidelity",
    of: str = "J",
    second: Predictor | None = None,
) -> tuple[list[dict[str, Any]], pd.DataFrame]:
    """Return the metrics of the studies, and the records of all ablations behind them.

    The metrics are rows of results.json (`reporting.schema.Metric`) of the variant `attribution`.
    prefix, of: what the metrics' names begin with, and what the game's value is called.
    second: another prediction of J; its metrics begin with second_order.
    settings: conf/evaluation's `fidelity`; whose `latents` the caller has already put into the game. facts: what else
    belongs to the definitions (estimator, concept). Several processes have to call it together.
    """
    base = describe(game, seed, facts)
    named = {"prefix": prefix, "of": of}
    metrics, records = [], []
    if settings["number"]:
        asked = {name: settings[name] for name in ("rates", "number", "kinds", "bootstrap")}
        drawn = (asked["rates"], asked["number"], asked["kinds"])
        table, found = ablation_fidelity(game, scores, *drawn, seed, asked["bootstrap"], progress, second)
        records.append(table)
        metrics += [metric for each in found for metric in _agreements(each, base | asked, **named)]
        for each in found if second else ():
            other = {"kind": each["kind"], "rate": each["rate"], **each["second"]}
            metrics += _agreements(other, base | asked, "second_order", of, "by scores and their interactions")
    if settings["fractions"]:
        table, areas = ordered_curves(
            game, scores, settings["fractions"], random_repeats=settings["repeats"], seed=seed, progress=progress
        )
        records.append(table)
        metrics += [
            _area(order, found, base | {"fractions": settings["fractions"]}, **named) for order, found in areas.items()
        ]
    if settings["negative"]:
        table, checked = negative_check(game, scores, settings["negative"], settings["draws"], seed, progress)
        records.append(table)
        metrics += _negatives(checked, settings, base, **named)
    return metrics, pd.concat(records, ignore_index=True) if records else effects(game, scores, (), 0)


def describe(game: Playable, seed: int, more: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return what every definition says: objective, noisy latents, granularity, components, intact J, seed."""
    facts: dict[str, Any] = {"components": game.n, "seed": seed, "intact": game.intact}
    objective, space = getattr(game, "objective", None), getattr(game, "space", None)
    if objective is not None:
        ablation = getattr(getattr(objective, "ablation", None), "name", "zero")
        facts |= {"objective": objective.name, "noisy_latents": len(objective.latents), "ablation": ablation}
        facts["weighting"] = getattr(getattr(objective, "weighting", None), "name", "uniform")
        facts["frequencies"] = getattr(objective, "frequencies", 1.0)
    if space is not None:
        facts |= {"granularity": space.name, "kinds_of_site": list(space.kinds)}
    return facts | (more or {})


def _metric(name: str, found: Bounded | None, n: int, higher: bool | None, **definition: Any) -> dict[str, Any]:
    value, low, high = found or (None, None, None)
    return {
        "name": name,
        "variant": "attribution",
        "value": value,
        "low": low,
        "high": high,
        "n": n,
        "higher_is_better": higher,
        "definition": definition,
        "changes": {},
    }


_DRAWN = {
    "uniform": "random components",
    "top": "random ones of the twice as many with the highest positive scores",
    "single": "random components",
}
_AGREEMENTS = {
    "pearson": (True, "correlation of the predicted change of J ({by}) with the true change of {of}"),
    "spearman": (True, "rank correlation of the predicted change of J with the true change of {of}"),
    "slope": (None, "slope of the true change of {of} on the predicted change of J"),
}
_RIGHT = {  # of predictions of the very quantity that is measured
    "bias": (None, "mean of the true minus the predicted change of J (relative: divided by the mean |true change|)"),
    "sign": (True, "share of ablations whose predicted and true change of J have the same sign"),
    "r2": (True, "1 - sum (true - predicted)^2 / sum (true - mean true)^2 of the changes of J: R2 to true = predicted"),
}


def _ending(kind: str, rate: float | None) -> str:
    return "_single" if kind == "single" else ("" if kind == "uniform" else f"_{kind}") + f"@{rate:g}"


def _agreements(
    found: dict[str, Any], base: dict[str, Any], prefix: str, of: str, by: str = "minus the scores' sum"
) -> Iterator[dict[str, Any]]:
    """Yield fidelity_pearson@0.05, fidelity_sign_top@0.05, fidelity_r2_single and so on.

    by: how changes are predicted. There is no prediction of what images show, so only correlations are given of it.
    """
    kind, rate = found["kind"], found["rate"]
    size = "one at a time" if kind == "single" else f"{rate:.3g} of them"
    bootstrap = f"95 % percentile bootstrap over ablations, {base['bootstrap']} resamples; noisy latents fixed"
    for name, (higher, what) in (_AGREEMENTS | (_RIGHT if of == "J" else {})).items():
        more = {"intercept": found["intercept"]} if name == "slope" else {}
        more |= {"relative": found["relative_bias"]} if name == "bias" else {}
        yield _metric(
            f"{prefix}_{name}{_ending(kind, rate)}",
            found[name],
            found["n"],
            higher,
            what=f"{what.format(of=of, by=by)}, over ablations of {_DRAWN[kind]}, {size}",
            kind=kind,
            rate=rate,
            interval="95 %, Wilson; noisy latents fixed" if name == "sign" else bootstrap,
            **more,
            **base,
        )


def _area(order: str, found: dict[str, Any], base: dict[str, Any], prefix: str, of: str) -> dict[str, Any]:
    side = "below" if order == "most" else "above"
    first = "most helpful" if order == "most" else "most suppressing"
    what = (
        f"area of {of} {side} that of random order while components are removed, {first} first, as a share of its "
        "change from intact to nothing left"
    )
    interval = "95 % Student t over random orders"
    return _metric(f"{prefix}_area_{order}", found["area"], found["n"], True, what=what, interval=interval, **base)


def _negatives(
    found: dict[str, Any], settings: dict[str, Any], base: dict[str, Any], prefix: str, of: str
) -> Iterator[dict[str, Any]]:
    ratio, facts = settings["negative"], {key: found[key] for key in ("size", "predicted", "passed")}
    whose = {
        "negative": "most negative scores",
        "smallest": "smallest scores by magnitude",
        "random": "random components",
    }
    for name, what in whose.items():
        value = found[name]
        several, draws = name == "random", settings["draws"]
        yield _metric(
            f"{prefix}_change_{name}@{ratio:g}",
            value if several or value is None else (value, None, None),
            draws if several else 1,
            True if name == "negative" else None,
            what=f"change of {of} on ablating the {found['size']} components with the {what}"
            if not several
            else f"change of {of} on ablating {found['size']} random components, mean of {draws} draws",
            interval=f"the middle 95 % of {draws} draws" if several else None,
            ratio=ratio,
            **facts,
            **base,
        )


def agreement_metrics(
    base: dict[str, Any],
    stable: Sequence[dict[str, Any]] = (),
    controls: dict[str, dict[str, Any]] | None = None,
) -> list[dict[str, Any]]:
    """Return what `stability`, `growth` and `sanity` found as metrics.

    base: what their definitions say besides (`describe`). stable: of `stability`, or several of `growth`, whose metrics
    end with the number of noisy latents.
    """
    metrics = []
    for found in stable:
        facts, n = {"verdict": found["verdict"], **base}, found["pairs"]
        ending, between = "", base.get("between", "estimates of equal settings")
        if "noisy_latents" in found:
            ending, between = (
                f"_{found['noisy_latents']}_noisy_latents",
                f"two estimates from {found['noisy_latents']} noisy latents each",
            )
            facts["noisy_latents"] = found["noisy_latents"]
        rank = None if found["spearman"] is None else (found["spearman"], None, None)
        what = f"rank correlation between {between}"
        metrics.append(_metric(f"stability_spearman{ending}", rank, n, True, what=what, **facts))
        for share, value in found["overlap"].items():
            what = f"share of the top {share:.0%} of components that {between} have in common; chance: {share:g}"
            one = (value, None, None)
            metrics.append(_metric(f"stability_overlap{ending}@{share:g}", one, n, True, what=what, **facts))
    for name, found in (controls or {}).items():
        what = f"rank correlation of the scores with those of the control {name}, which should be far from 1"
        value = None if found["spearman"] is None else (found["spearman"], None, None)
        metrics.append(_metric(f"sanity_{name}", value, base["components"], None, what=what, **found, **base))
    return metrics


def proxy_metrics(
    records: pd.DataFrame, images: pd.DataFrame, base: dict[str, Any], resamples: int, seed: int, prefix: str, of: str
) -> list[dict[str, Any]]:
    """Tell whether J stands for what images show: correlate the true changes of both under the same ablations.

    records, images: those of `fidelity_metrics` for J and for a measure of images (called `of`).
    """
    keys = ["study", "kind", "rate", "draw", "size"]
    both = records.merge(images, on=keys, suffixes=("", "_seen"))
    both, metrics = both[both["study"] == "ablations"], []
    for kind in both["kind"].unique():
        own = both[both["kind"] == kind]
        for rate in (None,) if kind == "single" else own["rate"].unique():
            rows = own if rate is None else own[own["rate"] == rate]
            found = agreement(rows["true"], rows["true_seen"], resamples, seed)
            what = f"correlation of the true change of J with that of {of}, over ablations of {_DRAWN[kind]}"
            interval = (
                f"95 % percentile bootstrap over ablations, {resamples} resamples; noisy latents and images fixed"
            )
            facts = {"what": what, "kind": kind, "rate": rate, "spearman": found["spearman"], "interval": interval}
            metrics.append(
                _metric(f"{prefix}_proxy{_ending(kind, rate)}", found["pearson"], found["n"], True, **facts, **base)
            )
    return metrics


def check(settings: dict[str, Any] | None, concept: dict[str, Any] | None = None, judge: Any = None) -> None:
    """Raise UserError for settings (conf/evaluation's `fidelity`) that cannot work, before any work is done.

    concept: its config, judge: that of the model; None: not looked at.
    """
    if not settings:
        return
    for kind in settings["kinds"]:
        choose(kind, KINDS, "kind of ablation")
    check_rates([*settings["rates"], *([settings["negative"]] if settings["negative"] else [])])
    if settings["number"] and (settings["number"] < 3 or settings["noisy_latents"] < 1):
        raise UserError("evaluation.fidelity needs number=3 or more (0: no ablations) and noisy_latents=1 or more")
    asked = settings["images"]
    for kind in asked["kinds"] if asked else []:
        choose(kind, KINDS, "kind of ablation")
    if asked and (asked["samples"] < 1 or 0 < asked["number"] < 3):
        raise UserError("evaluation.fidelity.images needs samples=1 or more and number=3 or more (0: no ablations)")
    if asked and concept is not None:
        if judge is None or not concept["label"]:
            raise UserError(
                "evaluation.fidelity.images needs a judge and a concept.label that it knows: set them, or "
                "evaluation.fidelity.images=null"
            )
        judge.log_odds(torch.zeros(1, 3, 8, 8), concept["kind"], concept["label"])  # it refuses what it does not know
    if settings["sanity"] and concept is not None:
        other_concept(settings["sanity"], concept)


def other_concept(prompts: Sequence[str], concept: dict[str, Any]) -> str:
    """Return the first of the prompts that is not the concept's own. UserError if there is none."""
    base = words(concept["base_prompt"])
    other = next((prompt for prompt in prompts if not asks(prompt, concept) and words(prompt) != base), None)
    if other is None:
        raise UserError("evaluation.fidelity.sanity names only the concept itself: add another prompt")
    return other
