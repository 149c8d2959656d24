"""How the numbers of a table were made, read off the results.json files: what differs between runs, and what not."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from cad_exp.reporting.tables.collect import Run
from cad_exp.reporting.tables.plan import Plan, lookup
from cad_exp.reporting.tables.study import Metric
from cad_exp.utils.text import line

SHARED = 3  # words that texts must have in common for these to be said once


def origin(plan: Plan, runs: Sequence[Run], metrics: Sequence[Metric]) -> list[str]:
    """Lines for below the table; the first says how many of the planned runs there are."""
    lines = [f"Runs: {len(runs)} of {len(plan.jobs)} planned."]
    if not runs:
        return lines
    said: dict[str, list[str]] = {}
    for metric in metrics:
        said.setdefault(_metric(metric, runs), []).append(f"`{metric.metric}` ({metric.variant})")
    lines += [f"{', '.join(names)}: {text}." for text, names in said.items() if text]
    models = _all(f"{run.run.get('model')} (weights {run.run.get('weights')})" for run in runs)
    lines.append(f"Model: {models}.")
    lines.append(f"Seed: {_all(run.run.get('seed') for run in runs)}.")
    lines.append(_looked_at(runs))
    lines.append(f"Code: git {_all(run.run.get('git') or 'unknown' for run in runs)}.")
    return lines + _differences(runs)


def _looked_at(runs: Sequence[Run]) -> str:
    """Return at how many noisy latents the model was asked, or which labelled images were read."""

    def of(group: str, *keys: str) -> list[list[Any]]:
        return [[lookup(run.run["config"], f"{group}.{key}") for key in keys] for run in runs]

    if all(run.run.get("task") == "probe" for run in runs):
        return f"Images: {_all(f'{number} of {name}' for name, number in of('images', 'name', 'number'))}."
    latents = _all(f"{samples} samples x {steps} steps" for samples, steps in of("noisy_latents", "samples", "steps"))
    return f"Noisy latents: {latents}."


def _metric(metric: Metric, runs: Sequence[Run]) -> str:
    """Return what a metric is, by how many samples, with which threshold, interval and judge."""
    found = [item for run in runs if (item := run.metrics.get((metric.metric, metric.variant or "")))]
    if not found:
        return ""
    definitions = [item["definition"] for item in found]
    parts = [_all(d["what"] for d in definitions if d.get("what"))]
    if numbers := sorted({item["n"] for item in found if item["n"] is not None}):
        parts.append(f"n = {numbers[0]}" if len(numbers) == 1 else f"n = {numbers[0]} to {numbers[-1]}")
    for key in ("threshold", "interval", "judge"):
        if said := _all(d[key] for d in definitions if d.get(key) is not None):
            parts.append(f"{key}: {said}")
    return "; ".join(part for part in parts if part)


def _differences(runs: Sequence[Run]) -> list[str]:
    """Library versions, devices and threads, where runs differ in them."""
    lines = []
    packages = dict.fromkeys(package for run in runs for package in run.run.get("versions", {}))
    for package in packages:
        lines += _differing(package, [run.run.get("versions", {}).get(package) for run in runs])
    for key in ("device", "precision", "threads"):
        lines += _differing(key, [run.run.get(key) for run in runs])
    return lines


def _differing(what: str, values: list[Any]) -> list[str]:
    return [f"Runs differ in {what}: {_all(values)}."] if len(set(map(str, values))) > 1 else []


def _all(values: Iterable[Any]) -> str:
    """Return the different values, each once; what they begin and end with is said once too."""
    return joined(list(dict.fromkeys(map(line, values))))


def joined(texts: list[str]) -> str:
    """Different texts as one: "likely object is (church / tench)". Words that all begin or end with are factored out.

    At least SHARED words have to be common, or the texts stand whole: "mini / sd14". No alternative is left empty.
    """
    split = [text.split() for text in texts]
    room = min(map(len, split), default=0) - 1  # one word of the shortest text stays
    first = _common(split, room)
    last = _common([words[::-1] for words in split], room - first)
    if len(texts) < 2 or first + last < SHARED:
        return " / ".join(texts)
    middle = " / ".join(" ".join(words[first : len(words) - last]) for words in split)
    return " ".join([*split[0][:first], f"({middle})", *split[0][len(split[0]) - last :]])


def _common(split: list[list[str]], most: int) -> int:
    """How many words, at most `most`, all lists begin with."""
    number = 0
    while number < most and len({words[number] for words in split}) == 1:
        number += 1
    return number
