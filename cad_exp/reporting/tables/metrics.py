"""Which metrics a table shows, of which variant of the model, and what they are called."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from cad_exp.reporting import wording
from cad_exp.reporting.schema import VARIANTS
from cad_exp.reporting.tables.collect import Found, Run
from cad_exp.reporting.tables.plan import Plan
from cad_exp.reporting.tables.study import Metric
from cad_exp.utils.errors import UserError, choose

DRAWN = "drawn"  # in place of a metric: what is drawn instead of the concept, in words


def resolve(metrics: Iterable[Metric], plan: Plan, found: Found) -> list[Metric]:
    """Return the metrics with their variants chosen, without optional ones that no run has.

    UserError where all runs are there and none has a metric that is not optional.
    """
    runs, chosen = found_runs(plan, found), []
    whole = len(runs) == len(plan.jobs)  # before that, what a metric is missing from may be the runs to come
    for metric in metrics:
        if metric.metric == DRAWN:
            chosen.append(replace(metric, variant="edited"))
            continue
        there = {variant for run in runs for name, variant in run.metrics if name == metric.metric}
        if metric.optional and not there:
            continue
        if whole:
            choose(metric.metric, sorted({name for run in runs for name, _ in run.metrics}), "metric")
        variant = metric.variant or ("attribution" if there == {"attribution"} else "edited")
        if whole and variant not in there:
            raise UserError(
                f"the metric '{metric.metric}' has no variant '{variant}'. "
                f"There are: {', '.join(sorted(there, key=VARIANTS.index))}"
            )
        chosen.append(replace(metric, variant=variant))
    return chosen


def found_runs(plan: Plan, found: Found) -> list[Run]:
    """Return the complete runs of a plan's jobs, in the order of the jobs."""
    return [found.runs[job.hash] for job in plan.jobs if job.hash in found.runs]


def label(name: str, higher: bool | None = None) -> str:
    """Return a metric's name for people, with an arrow that says which direction is better."""
    return wording.LABELS.get(name, name) + ("" if higher is None else " ↑" if higher else " ↓")


def direction(found: list[dict[str, Any]]) -> bool | None:
    """Whether higher is better, where all runs say the same."""
    said = {item["higher_is_better"] for item in found}
    return said.pop() if len(said) == 1 else None
