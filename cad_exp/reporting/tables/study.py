"""The section `study:` of an experiment file: how the study's table looks. It changes no number and no hash."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from cad_exp.reporting.schema import VARIANTS
from cad_exp.utils.errors import UserError, choose

BEST = ("rows", "columns")
OWN = ("localisation",)  # pictures that come with a table of their own
PICTURES = ("pareto", *OWN)
_TEXTS = ("title", "question", "join", "along", "x", "y")
_LISTS = ("rows", "columns", "baseline", "panels", "series", "footnote")  # of texts
_ITEMS = {
    "cells": ("metric", "variant", "label", "percent", "digits", "optional"),
    "reference": ("where", "metric", "value", "source"),
}
_WORDS = ("metric", "variant", "label", "source")
CHANNELS = 3  # of a picture: colour, mark, line


@dataclass(frozen=True)
class Metric:
    """One metric of a cell. variant None: `edited`, or `attribution` for metrics that exist only there.

    digits: after the point; None: as many as fit the value. optional: left out while no run has the metric.
    """

    metric: str
    variant: str | None = None
    label: str | None = None
    percent: bool = False
    digits: int | None = None
    optional: bool = False


@dataclass(frozen=True)
class Reference:
    """A published value that stands beside ours in the cells that `where` (dotted key -> value) names."""

    where: dict[str, Any]
    metric: str
    value: float
    source: str


@dataclass(frozen=True)
class Study:
    """See docs/reference/tables.md for what each key means."""

    title: str
    question: str = ""
    rows: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    cells: tuple[Metric, ...] = ()
    join: str | None = None
    labels: dict[str, str] = field(default_factory=dict)
    best: str | None = None
    intervals: bool = False
    baseline: tuple[str, ...] = ()
    reference: tuple[Reference, ...] = ()
    footnote: tuple[str, ...] = ()
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
        """Return a config's value as the table shows it; "-" for nothing."""
        plain = "-" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
        return self.labels.get(plain, plain)

    def head(self, key: str) -> str:
        """Return a key as the table's head shows it: `concept` for concept.name, `ratio` for edit.ratio."""
        group, _, last = key.rpartition(".")
        return self.labels.get(key, group if last == "name" and group else last)


def read(content: Any, experiment: str) -> Study:
    """Return the study of a config's section. UserError for one that is not there, misspelt or contradictory."""
    where = f"conf/experiment/{experiment}.yaml"
    if not isinstance(content, dict):
        raise UserError(f"{where} has no section study:, which says how its table looks (docs/reference/tables.md)")
    for key in content:
        choose(key, [each.name for each in fields(Study)], f"key of study: in {where}")
    given = {key: _typed(key, value, where) for key, value in content.items() if value is not None}
    for key in ("title",) if given.get("picture") in OWN else ("title", "rows", "cells"):
        if not given.get(key):
            raise UserError(f"study: in {where} needs {key} (docs/reference/tables.md)")
    cells = tuple(Metric(**_item("cells", cell, where)) for cell in given.get("cells", ()))
    references = tuple(Reference(**_item("reference", item, where)) for item in given.get("reference", ()))
    study = Study(**given | {"cells": cells, "reference": references})
    _check(study, where)
    return study


def _typed(key: str, value: Any, where: str) -> Any:
    """Return the value of a key as Study holds it: YAML reads a title 2024 as a number, and one item is a list too."""
    if key in _TEXTS:
        return str(value)
    if key == "labels":
        if not isinstance(value, dict):
            raise UserError(f"labels of study: in {where} must be names for values: {{first_order: CAD}}")
        return {str(name): str(text) for name, text in value.items()}
    if key not in (*_LISTS, *_ITEMS):
        return value
    listed = value if isinstance(value, list) else [value]
    return tuple(map(str, listed)) if key in _LISTS else tuple(listed)


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
    return {key: str(value) if key in _WORDS and value is not None else value for key, value in content.items()}


def _check(study: Study, where: str) -> None:
    if study.best is not None:
        choose(study.best, BEST, f"best of study: in {where}")
    if study.picture is not None:
        choose(study.picture, PICTURES, f"picture of study: in {where}")
        if study.picture not in OWN and not (study.series and study.along):
            raise UserError(f"the picture of study: in {where} needs series and along")
        if study.picture in OWN and (study.rows or study.columns or study.cells):
            raise UserError(f"picture: {study.picture} in {where} has a table of its own: no rows, columns or cells")
        if len(study.series) > CHANNELS:
            raise UserError(
                f"the picture of study: in {where} tells at most {CHANNELS} series apart, by colour, mark, line"
            )
    metrics = [cell.metric for cell in study.cells]
    for cell in study.cells:
        if cell.variant is not None:
            choose(cell.variant, VARIANTS, f"variant in {where}")
        if cell.digits is not None and (isinstance(cell.digits, bool) or cell.digits not in range(10)):
            raise UserError(f"digits of cells in {where} must be a number from 0 to 9, not {cell.digits}")
    if study.cells and all(cell.optional for cell in study.cells):
        raise UserError(f"cells of study: in {where} are all optional: a table without runs would have no columns")
    for name in study.baseline:
        choose(name, metrics, f"metric of baseline in {where}")
    for item in study.reference:
        choose(item.metric, metrics, f"metric of reference in {where}")
        if not isinstance(item.where, dict) or isinstance(item.value, bool) or not isinstance(item.value, (int, float)):
            raise UserError(f"a reference in {where} needs a number as value and where: {{key: value}}")
