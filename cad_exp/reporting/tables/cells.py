"""The numbers of a study's runs as entries of its table: values, means, intervals, and published values beside them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from statistics import fmean
from typing import Any

from cad_exp.reporting import wording
from cad_exp.reporting.tables.collect import Found
from cad_exp.reporting.tables.metrics import DRAWN, direction, label
from cad_exp.reporting.tables.places import fits
from cad_exp.reporting.tables.plan import Job, Plan
from cad_exp.reporting.tables.study import Metric
from cad_exp.reporting.tables.table import MISSING, NOTHING, Entry


class Cells:
    """Turns metrics of runs into entries, and remembers what a note must explain.

    warnings: of the metrics that were shown. sizes: per metric, of how many images its values are. unfit: references
    that no entry has shown yet.
    """

    def __init__(self, plan: Plan, found: Found, metrics: list[Metric]):
        self.study, self.runs, self.jobs, self.metrics = plan.study, found.runs, plan.jobs, metrics
        self.sources = list(dict.fromkeys(reference.source for reference in self.study.reference))
        self.unfit = list(self.study.reference)
        self.warnings: dict[str, None] = {}
        self.sizes = {m: {i["n"] for i in self.found(m, filter(self.has, plan.jobs)) if i["n"]} for m in self.metrics}

    def entry(self, metric: Metric, jobs: list[Job]) -> Entry:
        """Show one metric in the cell of these jobs, over all their runs."""
        done = [job for job in jobs if self.has(job)]
        folders = tuple(self.runs[job.hash].folder for job in done)
        if metric.metric == DRAWN and done:
            return Entry(self.drawn(done), runs=folders)
        found = self.found(metric, done)
        made = self.number(metric, found) if done else Entry(MISSING if jobs else "")
        if done and (len(found) or len(done)) < len(jobs):
            made.partial = True
            made.tail += f" {MISSING}"
        made.tail += self.references(metric, jobs)
        made.runs = folders
        return made

    def drawn(self, jobs: list[Job]) -> str:
        """Return what is drawn instead of the concept, mean over the runs."""
        shares: dict[str, float] = {}
        for metric in (each for job in jobs for each in self.runs[job.hash].metrics.values()):
            if metric["name"].startswith("drawn@") and metric["variant"] == "edited":
                shares[metric["name"]] = shares.get(metric["name"], 0.0) + metric["value"] / len(jobs)
        named = [{"name": name, "variant": "edited", "value": value} for name, value in shares.items()]
        return wording.drawn_instead(named) or NOTHING

    def has(self, job: Job) -> bool:
        """Return whether a job has a complete run."""
        return job.hash in self.runs

    def found(self, metric: Metric, jobs: Iterable[Job]) -> list[dict[str, Any]]:
        """Return what the runs of these jobs say of a metric, where they have a value."""
        all_ = (self.runs[job.hash].metrics.get((metric.metric, metric.variant or "")) for job in jobs)
        return [item for item in all_ if item and item["value"] is not None]

    def number(self, metric: Metric, found: list[dict[str, Any]]) -> Entry:
        """One or more runs' metric as text: value [low, high], or mean (lowest–highest)."""
        values = [item["value"] for item in found]
        if not values:
            return Entry(NOTHING)
        made = Entry(self.text(fmean(values), metric), higher=direction(found))
        if warned := [warning for item in found if (warning := item["definition"].get("warning"))]:
            self.warnings |= dict.fromkeys(warned)
            made.tail = "*"
        if len(values) > 1:
            made.tail += f" ({self.text(min(values), metric)}–{self.text(max(values), metric)})"
        elif self.study.intervals and found[0]["low"] is not None:
            made.tail += f" [{self.text(found[0]['low'], metric)}, {self.text(found[0]['high'], metric)}]"
        if len(self.sizes.get(metric, ())) > 1:
            made.tail += f", n {count_range(item['n'] for item in found if item['n'])}"
        return made

    def text(self, value: float, metric: Metric) -> str:
        """Write a value with the digits, and in the unit, that the study gives the metric."""
        value = 100 * value if metric.percent else value
        if metric.digits is not None:
            return f"{value:z.{metric.digits}f}"
        if metric.percent:
            return f"{value:z.0f}" if self.study.join is not None else f"{value:z.1f}"
        return short(value) if self.study.join is not None else wording.number(value)

    def references(self, metric: Metric, jobs: list[Job]) -> str:
        """Write the published values of a metric for these jobs, each with its paper."""
        said = ""
        for reference in self.study.reference:
            if reference.metric == metric.metric and any(fits(reference, job) for job in jobs):
                self.unfit = [other for other in self.unfit if other is not reference]
                said += f" ({self.paper(reference.source)}: {self.text(reference.value, metric)})"
        return said

    def paper(self, source: str) -> str:
        """Name a source: "paper", or "paper 2" where there are several."""
        return "paper" if len(self.sources) == 1 else f"paper {self.sources.index(source) + 1}"

    def head(self, metric: Metric) -> str:
        """Return what stands over a metric's column."""
        found = self.found(metric, filter(self.has, self.jobs))
        said = label(metric.label or metric.metric, direction(found))
        if metric.variant in ("unedited", "random") and not metric.label:
            said = f"{metric.variant}: {said}"
        return f"{said}, %" if metric.percent else said


def count_range(numbers: Iterable[int]) -> str:
    """Write "64", or "12–64" of several."""
    found = sorted(set(numbers))
    return f"{found[0]}–{found[-1]}" if len(found) > 1 else "".join(map(str, found)) or NOTHING


def short(value: float) -> str:
    """Two digits without a leading zero: .67, -.04, 1.0."""
    if abs(value) >= 10:
        return f"{value:.1f}"
    text = f"{value:z.2f}"
    return {"1.00": "1.0", "-1.00": "-1.0"}.get(text) or re.sub(r"^(-?)0\.", r"\1.", text)
