"""The section `study:` of an experiment file: how the study's table looks. It changes no number and no hash."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from cad_exp.errors import UserError, choose
from cad_exp.results import VARIANTS

BEST = ("rows", "columns")
OWN = {"localisation": "python -m cad_exp.localisation FOLDER"}  # pictures with a table and a command of their own
PICTURES = ("pareto", *OWN)
_LISTS = ("rows", "columns", "cells", "baseline", "reference", "panels", "series")
_ITEMS = {"cells": ("metric", "variant", "label", "percent"), "reference": ("where", "metric", "value", "source")}


@dataclass(frozen=True)
class Metric:
    """One metric of a cell. variant None: `edited`, or `attribution` for metrics that exist only there."""

    metric: str
    variant: str | None = None
    label: str | None = None
    percent: bool = False


@dataclass(frozen=True)
class Reference:
    """A published value that stands beside ours in the cells that `where` (dotted key -> value) names."""

    where: dict[str, Any]
    metric: str
    value: float
    source: str


@dataclass(frozen=True)
class Study:
    """See docs/tables.md for what each key means."""

    title: str
    question: str = ""
    rows: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    cells: tuple[Metric, ...] = ()
    join: str | None = None
    labels: dict[str, str] | None = None
    best: str | None = None
    intervals: bool = False
    baseline: tuple[str, ...] = ()
    reference: tuple[Reference, ...] = ()
    footnote: str | tuple[str, ...] = ()
    picture: str | None = None
    panels: tuple[str, ...] = ()
    series: tuple[str, ...] = ()
    along: str | None = None
    x: str = "retention_worst"
    y: str = "concept_rate"

    @property
    def keys(self) -> tuple[str, ...]:
        """Every dotted config key that the study names."""
        drawn = [*self.panels, *self.series, self.along] if self.picture else []
        return tuple(dict.fromkeys(key for key in (*self.rows, *self.columns, *drawn) if key))

    def shown(self, value: Any) -> str:
        """A config's value as the table shows it; "-" for nothing."""
        plain = "-" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
        return (self.labels or {}).get(plain, plain)

    def head(self, key: str) -> str:
        """A key as the table's head shows it: `concept` for concept.name, `ratio` for edit.ratio."""
        group, _, last = key.rpartition(".")
        return (self.labels or {}).get(key, group if last == "name" and group else last)


def read(content: Any, experiment: str) -> Study:
    """The study of a config's section. UserError for one that is not there, misspelt or contradictory."""
    where = f"experiments/{experiment}.yaml"
    if not isinstance(content, dict):
        raise UserError(f"{where} has no section study:, which says how its table looks (docs/tables.md)")
    for key in content:
        choose(key, [field.name for field in fields(Study)], f"key of study: in {where}")
    given = {key: _listed(value) if key in _LISTS else value for key, value in content.items()}
    for key in ("title",) if given.get("picture") in OWN else ("title", "rows", "cells"):
        if not given.get(key):
            raise UserError(f"study: in {where} needs {key} (docs/tables.md)")
    cells = tuple(Metric(**_item("cells", cell, where)) for cell in given.get("cells", ()))
    references = tuple(Reference(**_item("reference", item, where)) for item in given.get("reference", ()))
    labels = {str(key): str(value) for key, value in (given.get("labels") or {}).items()}
    study = Study(**given | {"cells": cells, "reference": references, "labels": labels})
    _check(study, where)
    return study


def _listed(value: Any) -> tuple[Any, ...]:
    return () if value is None else tuple(value) if isinstance(value, list) else (value,)


def _item(key: str, content: Any, where: str) -> dict[str, Any]:
    """One entry of `cells` or `reference`; a bare word is a metric."""
    if isinstance(content, str):
        content = {"metric": content}
    if not isinstance(content, dict):
        raise UserError(f"{key} of study: in {where} holds '{content}', which is no metric")
    for name in content:
        choose(name, _ITEMS[key], f"key of {key} in {where}")
    needed = _ITEMS[key] if key == "reference" else ("metric",)
    if missing := [name for name in needed if content.get(name) is None]:
        raise UserError(f"an entry of {key} of study: in {where} lacks {', '.join(missing)}")
    return content


def _check(study: Study, where: str) -> None:
    if study.best is not None:
        choose(study.best, BEST, f"best of study: in {where}")
    if study.picture is not None:
        choose(study.picture, PICTURES, f"picture of study: in {where}")
        if study.picture not in OWN and not (study.series and study.along):
            raise UserError(f"the picture of study: in {where} needs series and along")
    metrics = [cell.metric for cell in study.cells]
    for cell in study.cells:
        if cell.variant is not None:
            choose(cell.variant, VARIANTS, f"variant in {where}")
    for name in study.baseline:
        choose(name, metrics, f"metric of baseline in {where}")
    for item in study.reference:
        choose(item.metric, metrics, f"metric of reference in {where}")
        if not isinstance(item.where, dict) or isinstance(item.value, bool) or not isinstance(item.value, (int, float)):
            raise UserError(f"a reference in {where} needs a number as value and where: {{key: value}}")
