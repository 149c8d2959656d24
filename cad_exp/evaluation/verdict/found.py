"""Metrics as a verdict reads them: by variant and name, with the ends of their intervals."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

Metric = dict[str, Any]


class Found:
    """The metrics of one variant by name."""

    def __init__(self, metrics: Iterable[Metric], variant: str):
        self.named = {metric["name"]: metric for metric in metrics if metric.get("variant") == variant}

    def get(self, name: str) -> Metric | None:
        """Return the metric of this name; None where it is missing or has no number as its value."""
        metric = self.named.get(name)
        value = metric.get("value") if metric else None
        return metric if isinstance(value, (int, float)) and value == value else None

    def value(self, name: str) -> float | None:
        """Return the value of the metric of this name; None where there is none."""
        metric = self.get(name)
        return metric["value"] if metric else None


def lower(metric: Metric) -> float:
    """Return the lower end of the interval; the value where there is none."""
    end = end_of(metric, "low")
    return float(metric["value"]) if end is None else end


def upper(metric: Metric) -> float:
    """Return the upper end of the interval; the value where there is none."""
    end = end_of(metric, "high")
    return float(metric["value"]) if end is None else end


def end_of(metric: Metric, end: str) -> float | None:
    """Return an end of the interval; None where there is none, or no number."""
    value: float | None = metric.get(end)
    return None if value is None or value != value else value


def capital(text: str) -> str:
    """Write a sentence with a capital letter."""
    return text[:1].upper() + text[1:]
