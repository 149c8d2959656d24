"""Fidelity: how far scores can be trusted, found by removing components and looking.

A score claims what happens to J when its component is ablated; the scores of several add up to a prediction. Here
predictions meet the truth, on ablations that no estimator has seen. The functions ask a game for no more than `n`,
`intact` and `values(gates)`: whatever has these (a judge of images, too) can be held against the scores.

Sources: predicted against true effect of random ablations, COAR (Shah, Ilyas, Madry, arXiv 2404.11534) and CAD
(arXiv 2412.02542, Fig. 2); curves in the order of relevance, Samek et al. (arXiv 1509.06321).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import blake2b
from itertools import groupby, islice
from math import comb, lgamma, log
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from cad_exp.evaluation.fidelity.playable import Playable, Predictor
from cad_exp.evaluation.fidelity.statistics import agreement, stream
from cad_exp.evaluation.intervals.estimate import estimated
from cad_exp.evaluation.intervals.images import Mean
from cad_exp.utils.errors import UserError, choose
from cad_exp.utils.finite import refusal

KINDS = ("uniform", "top", "single")
ORDERS = ("most", "least", "random")
RATES = (0.01, 0.02, 0.05, 0.1, 0.2)
FRACTIONS = tuple(i / 10 for i in range(11))
AT_ONCE, ENTRIES = 256, 2**25  # ablations, and gates, that are asked of a game in one call

Progress = Callable[[int, int], None]


class Ablation(NamedTuple):
    """Which components (k,) are removed together; the rest says what this ablation belongs to."""

    study: str  # ablations, curve, negative
    kind: str
    rate: float
    draw: int
    chosen: np.ndarray


def effects(
    game: Playable,
    scores: Tensor,
    ablations: Iterable[Ablation],
    total: int,
    progress: Progress | None = None,
    second: Predictor | None = None,
) -> pd.DataFrame:
    """Ablate, and return one row per ablation: study, kind, rate, draw, size, predicted and true change of J.

    scores (n,): estimates of J(intact) - J(component ablated), so that predicted = -sum of those removed, in fp64.
    total: number of ablations, for the progress. second: predicts in another way, in a column of that name.
    Raises UserError if the scores are not the game's or J is not finite.
    """
    if scores.shape != (game.n,):
        raise UserError(f"{tuple(scores.shape)} scores do not fit {game.n} components: attribute the same granularity")
    values, rows, others = scores.detach().double().cpu().numpy(), [], list[float]()
    at_once = getattr(game, "at_once", AT_ONCE)
    for part in _together(ablations, max(1, min(at_once, ENTRIES // game.n))):
        gates = torch.ones(len(part), game.n)
        for gate, ablation in zip(gates, part, strict=True):
            gate[torch.from_numpy(ablation.chosen)] = 0
        change = np.asarray(game.values(gates), dtype=np.float64) - game.intact
        if not np.isfinite(change).all():
            raise refusal("J of an ablation", getattr(getattr(game, "objective", None), "model", None))
        for (study, kind, rate, draw, chosen), true in zip(part, change, strict=True):
            rows.append((study, kind, rate, draw, len(chosen), -values[chosen].sum(), true))
        others += second.predict(gates).tolist() if second else []
        if progress:
            progress(len(rows), total)
    table = pd.DataFrame(rows, columns=["study", "kind", "rate", "draw", "size", "predicted", "true"])
    return table.assign(second=others) if second else table


def _together(ablations: Iterable[Ablation], at_once: int) -> Iterator[list[Ablation]]:
    """Yield those that are asked of the game in one call: of one study, kind and size.

    So studies share whole calls.
    """
    for _, alike in groupby(ablations, lambda a: (a.study, a.kind, a.study == "ablations" and len(a.chosen))):
        while part := list(islice(alike, at_once)):
            yield part


def check_rates(rates: Sequence[float]) -> None:
    """Raise UserError for a rate that is no share of the components."""
    for rate in rates:
        if not 0 < rate <= 1:
            raise UserError(f"a rate of ablation is above 0 and at most 1, not {rate}: 0.05 removes 5 %")


def ablation_fidelity(
    game: Playable,
    scores: Tensor,
    rates: Sequence[float] = RATES,
    number: int = 40,
    kinds: Sequence[str] = ("uniform", "top"),
    seed: int = 0,
    resamples: int = 1000,
    progress: Progress | None = None,
    second: Predictor | None = None,
) -> tuple[pd.DataFrame, list[dict[str, Any]]]:
    """Compare the predicted with the true change of J for `number` random ablations of each kind at each rate.

    A rate of the components, round(rate n) but at least one, is removed. `uniform`: out of all; `top`: out of the twice
    as many with the highest positive scores, which is where edits happen (half of the positive ones, where they are too
    few); `single`: one component at a time, whatever the rates, so that with enough of them it is the correlation with
    the exact leave-one-out effects. The subsets of one size all differ; where there are no more than `number`, each is
    taken once. They depend on the seed, the kind and the size only: the first 16 of 1000 are the 16 of a shorter study,
    and every estimator meets the same uniform ones.

    second: another prediction, beside the sum of scores. Returns the records (see `effects`) and, per kind and rate
    (`single`: rate None), what `agreement` says; of `second` under that name. Rates are
    never mixed: large ablations do more than small ones, which alone correlates. Cost: number x rates x kinds
    evaluations of J. UserError for rates outside (0, 1].
    """
    check_rates(rates)
    kinds = [choose(kind, KINDS, "kind of ablation") for kind in kinds]
    falling = torch.sort(scores.detach().cpu(), descending=True, stable=True)
    best = falling.indices[falling.values > 0].numpy()
    sizes: dict[tuple[str, int], list[float]] = {}  # rates of few components may come to the same size: drawn once
    of_kind = {kind: (1 / game.n,) if kind == "single" else rates for kind in kinds}
    for kind in kinds:
        for rate in of_kind[kind]:
            size = max(1, round(rate * game.n))
            size = min(size, (len(best) + 1) // 2) if kind == "top" else size
            sizes.setdefault((kind, size), []).append(rate)

    def every() -> Iterator[Ablation]:
        for (kind, size), shared in sizes.items():
            pool = best[: 2 * size] if kind == "top" else None
            drawn = _subsets(pool, size, game.n, number, stream(seed, kind, size)) if size else ()
            yield from (Ablation("ablations", kind, shared[0], draw, chosen) for draw, chosen in enumerate(drawn))

    drawn = effects(game, scores, every(), number * len(sizes), progress, second)
    parts = [
        drawn[(drawn["kind"] == kind) & (drawn["rate"] == shared[0])].assign(rate=rate)
        for (kind, _), shared in sizes.items()
        for rate in shared
    ]
    records = pd.concat([part for part in parts if len(part)] or [drawn], ignore_index=True)
    found = []
    for kind in kinds:
        asked: Sequence[float | None] = (None,) if kind == "single" else rates
        for one in asked:
            rows = records[records["kind"] == kind]
            rows = rows if one is None else rows[rows["rate"] == one]
            told = {"kind": kind, "rate": one, **agreement(rows["predicted"], rows["true"], resamples, seed)}
            found.append(
                told | ({"second": agreement(rows["second"], rows["true"], resamples, seed)} if second else {})
            )
    return records, found


def _subsets(pool: np.ndarray | None, size: int, n: int, number: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Yield different sorted subsets of the pool (None: of all n components), or all of them.

    All are taken where they are no more than `number`. They come one after the other, for a thousand subsets of a
    hundred million weights do not fit into memory.
    """
    of, seen = n if pool is None else len(pool), set[bytes]()
    few = lgamma(of + 1) - lgamma(size + 1) - lgamma(of - size + 1) <= log(max(number, 1)) + 1e-9
    wanted = min(number, comb(of, size)) if few else number
    while len(seen) < wanted:  # drawn also where all are taken: a short study is the beginning of a long one
        chosen = rng.choice(of, size, replace=False).astype(np.int64)
        chosen = np.sort(chosen if pool is None else pool[chosen])
        key = blake2b(chosen.tobytes(), digest_size=16).digest()
        if key not in seen:
            seen.add(key)
            yield chosen


def ordered_curves(
    game: Playable,
    scores: Tensor,
    fractions: Sequence[float] = FRACTIONS,
    orders: Sequence[str] = ORDERS,
    random_repeats: int = 5,
    seed: int = 0,
    progress: Progress | None = None,
) -> tuple[pd.DataFrame, dict[str, dict[str, Any]]]:
    """Measure J while ever more components are removed: most helpful first, most suppressing first, in random orders.

    fractions: shares removed, in 0..1; none (0) is always there. Returns the records (see `effects`; kind is the order,
    rate the fraction, J is `true` more than intact) and, for the orders `most` and `least`, the area between the curve
    and the mean random one, over the fractions (trapezoids), divided by |J(1) - J(0)|. Positive is as it should be:
    below random for `most`, above for `least`. It is (value, low, high), mean and 95 % Student t over random orders;
    None where J(1) = J(0) or there is no random order. Cost: fractions x (repeats + 2) + 1 evaluations of J.
    """
    orders = [choose(order, ORDERS, "order") for order in orders]
    if any(not 0 <= fraction <= 1 for fraction in fractions):
        raise UserError(f"fractions of the components lie in 0..1, not {list(fractions)}")
    shares = sorted({0.0, *map(float, fractions)})[1:]
    falling = torch.sort(scores.detach().cpu(), descending=True, stable=True).indices.numpy()
    ways = [(order, repeat) for order in orders for repeat in range(random_repeats if order == "random" else 1)]

    def every() -> Iterator[Ablation]:
        yield Ablation("curve", "all", 1.0, 0, falling)
        for order, repeat in ways:
            way = falling if order == "most" else falling[::-1]
            way = stream(seed, "curve", repeat).permutation(game.n) if order == "random" else way
            for share in shares:
                yield Ablation("curve", order, share, repeat, way[: round(share * game.n)].copy())

    records = effects(game, scores, every(), 1 + len(ways) * len(shares), progress)
    span, records = abs(records["true"].iloc[0]), records.iloc[1:]
    starts = [("curve", order, 0.0, repeat, 0, 0.0, 0.0) for order, repeat in ways]
    records = pd.concat([pd.DataFrame(starts, columns=records.columns), records], ignore_index=True)
    records = records.sort_values(["kind", "draw", "rate"], ignore_index=True)

    def surfaces(order: str) -> list[float]:
        curves = records[records["kind"] == order].groupby("draw")
        return [_area(curve["rate"].to_numpy(), curve["true"].to_numpy()) for _, curve in curves]

    areas = {}
    for order, sign in (("most", 1), ("least", -1)):
        if order in orders:
            gaps = [sign * (random - surfaces(order)[0]) / span for random in surfaces("random") if span]
            areas[order] = {"area": estimated(Mean(np.array(gaps))) if gaps else None, "n": len(gaps)}
    return records, areas


def _area(x: np.ndarray, y: np.ndarray) -> float:
    """Return the area under the line through the points, by trapezoids (numpy 1 and 2 name their own differently)."""
    return float((np.diff(x) * (y[1:] + y[:-1]) / 2).sum())


def negative_check(
    game: Playable,
    scores: Tensor,
    ratio: float = 0.05,
    draws: int = 20,
    seed: int = 0,
    progress: Progress | None = None,
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Remove the most negative components, round(ratio n) of them: does J increase, and more than for controls?

    Controls of equal size: the `smallest` scores by magnitude, and `draws` random sets. Returns the records (see
    `effects`) and: size, negative, predicted and smallest (changes of J), random (mean with the middle 95 % of the
    draws), passed: an increase, and above what 95 % of random sets give. Fewer are taken where fewer are negative;
    `passed` is None where none is.
    """
    check_rates([ratio])
    rising = torch.sort(scores.detach().cpu(), stable=True)
    size = min(max(1, round(ratio * game.n)), int((rising.values < 0).sum()))
    if size == 0:
        nothing = dict.fromkeys(("negative", "predicted", "smallest", "random", "passed"))
        return effects(game, scores, (), 0), {"size": 0, **nothing}
    smallest = torch.sort(scores.detach().cpu().abs(), stable=True).indices[:size]

    def every() -> Iterator[Ablation]:
        yield Ablation("negative", "negative", ratio, 0, rising.indices[:size].numpy())
        yield Ablation("negative", "smallest", ratio, 0, smallest.numpy())
        for draw in range(draws):
            chosen = stream(seed, "negative", draw).choice(game.n, size, replace=False)
            yield Ablation("negative", "random", ratio, draw, chosen)

    records = effects(game, scores, every(), 2 + draws, progress)
    (negative, small), random = records["true"].iloc[:2], records["true"].iloc[2:].to_numpy()
    bounded = (float(random.mean()), *map(float, np.percentile(random, [2.5, 97.5]))) if draws else None
    found: dict[str, Any] = {
        "size": size,
        "negative": float(negative),
        "predicted": float(records["predicted"].iloc[0]),
    }
    found |= {"smallest": float(small), "random": bounded}
    return records, found | {"passed": bool(negative > 0 and (bounded is None or negative > np.percentile(random, 95)))}
