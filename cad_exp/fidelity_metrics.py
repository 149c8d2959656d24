"""What the fidelity studies found, as metrics of results.json: variant `attribution`, and all that pins it down."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd
from torch import Tensor

from .agreement import Bounded
from .errors import UserError, choose
from .fidelity import KINDS, Progress, ablation_fidelity, check_rates, effects, negative_check, ordered_curves
from .game import Game


def fidelity_metrics(
    game: Game,
    scores: Tensor,
    settings: dict[str, Any],
    seed: int = 0,
    facts: dict[str, Any] | None = None,
    progress: Progress | None = None,
) -> tuple[list[dict[str, Any]], pd.DataFrame]:
    """The metrics (see results.FIELDS, variant `attribution`) and the records of all ablations behind them.

    settings: conf/evaluation's `fidelity`; whose `probes` the caller has already put into the game. facts: what else
    belongs to the definitions (estimator, concept). Several processes have to call it together.
    """
    base = describe(game, seed, **(facts or {}))
    metrics, records = [], []
    if settings["number"]:
        names = ("rates", "number", "kinds")
        table, found = ablation_fidelity(
            game, scores, *(settings[name] for name in names), seed, settings["bootstrap"], progress
        )
        records.append(table)
        asked = {name: settings[name] for name in names} | {"bootstrap": settings["bootstrap"]}
        metrics += [metric for each in found for metric in _agreements(each, base | asked)]
    if settings["fractions"]:
        table, areas = ordered_curves(
            game, scores, settings["fractions"], random_repeats=settings["repeats"], seed=seed, progress=progress
        )
        records.append(table)
        metrics += [_area(order, found, base | {"fractions": settings["fractions"]}) for order, found in areas.items()]
    if settings["negative"]:
        table, checked = negative_check(game, scores, settings["negative"], settings["draws"], seed, progress)
        records.append(table)
        metrics += _negatives(checked, settings, base)
    return metrics, pd.concat(records, ignore_index=True) if records else effects(game, scores, (), 0)


def describe(game: Game, seed: int, **more: Any) -> dict[str, Any]:
    """What every definition says: objective, number of probes, granularity, components, intact J, seed."""
    facts: dict[str, Any] = {"components": game.n, "seed": seed, "intact": game.intact}
    objective, cut = getattr(game, "objective", None), getattr(game, "cut", None)
    if objective is not None:
        removal = getattr(getattr(objective, "removal", None), "name", "zero")
        facts |= {"objective": objective.name, "probes": len(objective.probes), "removal": removal}
    if cut is not None:
        facts |= {"granularity": cut.name, "kinds_of_site": list(cut.kinds)}
    return facts | more


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
    }


_DRAWN = {"uniform": "random components", "top": "random ones of the twice as many with the highest positive scores"}
_AGREEMENTS = {
    "pearson": (True, "correlation of the predicted change of J (minus the scores' sum) with the true one"),
    "spearman": (True, "rank correlation of the predicted with the true change of J"),
    "slope": (None, "slope of the true change of J on the predicted one; 1: effects are as large as predicted"),
}


def _agreements(found: dict[str, Any], base: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """fidelity_pearson@0.05, fidelity_pearson_top@0.05, ...; over all rates @all."""
    kind, rate = found["kind"], found["rate"]
    ending = ("" if kind == "uniform" else f"_{kind}") + ("@all" if rate is None else f"@{rate:g}")
    size = "of all rates together, whose different sizes alone correlate" if rate is None else f"{rate:.3g} of them"
    for name, (higher, what) in _AGREEMENTS.items():
        yield _metric(
            f"fidelity_{name}{ending}",
            found[name],
            found["n"],
            higher,
            what=f"{what}, over ablations of {_DRAWN[kind]}, {size}",
            kind=kind,
            rate=rate,
            intercept=found["intercept"],
            interval=f"95 % percentile bootstrap over ablations, {base['bootstrap']} resamples; probes fixed",
            **base,
        )


def _area(order: str, found: dict[str, Any], base: dict[str, Any]) -> dict[str, Any]:
    side = "below" if order == "most" else "above"
    first = "most helpful" if order == "most" else "most suppressing"
    what = f"area of J {side} that of random order while components are removed, {first} first, over |J(1) - J(0)|"
    interval = "95 % bootstrap over random orders"
    return _metric(f"fidelity_area_{order}", found["area"], found["n"], True, what=what, interval=interval, **base)


def _negatives(found: dict[str, Any], settings: dict[str, Any], base: dict[str, Any]) -> Iterator[dict[str, Any]]:
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
            f"fidelity_change_{name}@{ratio:g}",
            value if several or value is None else (value, None, None),
            draws if several else 1,
            True if name == "negative" else None,
            what=f"change of J on ablating the {found['size']} components with the {what}"
            if not several
            else f"change of J on ablating {found['size']} random components, mean of {draws} draws",
            interval=f"the middle 95 % of {draws} draws" if several else None,
            ratio=ratio,
            **facts,
            **base,
        )


def agreement_metrics(
    base: dict[str, Any], stable: dict[str, Any] | None = None, controls: dict[str, dict[str, Any]] | None = None
) -> list[dict[str, Any]]:
    """What `stability` and `sanity` found as metrics; base: what their definitions say besides (see `describe`)."""
    metrics = []
    if stable:
        facts, n = {"verdict": stable["verdict"], **base}, stable["pairs"]
        between = base.get("between", "estimates of equal settings")
        rank = None if stable["spearman"] is None else (stable["spearman"], None, None)
        metrics.append(
            _metric("stability_spearman", rank, n, True, what=f"rank correlation between {between}", **facts)
        )
        for share, value in stable["overlap"].items():
            what = f"share of the top {share:.0%} of components that {between} have in common; chance: {share:g}"
            metrics.append(_metric(f"stability_overlap@{share:g}", (value, None, None), n, True, what=what, **facts))
    for name, found in (controls or {}).items():
        what = f"rank correlation of the scores with those of the control {name}, which should be far from 1"
        value = None if found["spearman"] is None else (found["spearman"], None, None)
        metrics.append(_metric(f"sanity_{name}", value, base["components"], None, what=what, **found, **base))
    return metrics


def check(settings: dict[str, Any] | None) -> None:
    """UserError for settings (conf/evaluation's `fidelity`) that cannot work, before any work is done."""
    if not settings:
        return
    for kind in settings["kinds"]:
        choose(kind, KINDS, "kind of ablation")
    check_rates([*settings["rates"], *([settings["negative"]] if settings["negative"] else [])])
    if settings["number"] and (settings["number"] < 3 or settings["probes"] < 1):
        raise UserError("evaluation.fidelity needs number=3 or more (0: no ablations) and probes=1 or more")
