"""The verdict of a run: two plain sentences that a reader needs no statistics for.

`scores` says whether the scores may be trusted, and as what; `edit` whether the concept is gone, and at what cost.
Both read nothing but the metrics of results.json, cope with any of them missing, and are "" where there is nothing to
say. An interval counts and not its middle: "gone" is said where even the upper end is low.
"""

from __future__ import annotations

from collections.abc import Iterable

from cad_exp.evaluation.verdict.found import Metric
from cad_exp.evaluation.verdict.of_edit import edit
from cad_exp.evaluation.verdict.of_scores import scores, stable


def of(metrics: Iterable[Metric]) -> dict[str, str]:
    """Return both sentences, as `run.verdict` of results.json holds them."""
    metrics = list(metrics)
    return {"scores": scores(metrics), "edit": edit(metrics)}


__all__ = ["edit", "of", "scores", "stable"]
