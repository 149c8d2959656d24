"""Where the runs of a study stand in its tables: the combinations of values that its keys take."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from cad_exp.reporting.tables.plan import Job, lookup
from cad_exp.reporting.tables.study import Reference
from cad_exp.reporting.tables.table import NOTHING

Place = tuple[Any, ...]  # the values of a table's keys


def places(jobs: Sequence[Job], keys: Sequence[str]) -> list[Place]:
    """List the combinations of the keys' values, sorted by the order in which the sweep names each value."""
    seen: list[list[Any]] = [[] for _ in keys]
    found = [place_of(job, keys) for job in jobs]
    for place in found:
        for values, value in zip(seen, place, strict=True):
            if value not in values:
                values.append(value)
    return sorted(
        dict.fromkeys(found), key=lambda place: [values.index(v) for values, v in zip(seen, place, strict=True)]
    )


def place_of(job: Job, keys: Sequence[str]) -> Place:
    """Return the values of these keys in a job's config."""
    return tuple(_word(lookup(job.config, key)) for key in keys)


def _word(value: Any) -> Any:
    """Return a config's value as something that can be compared: "a, b" for a list."""
    if isinstance(value, list):
        return ", ".join(map(str, value)) or NOTHING
    return str(value) if isinstance(value, dict) else value


def repeated(groups: Iterable[Sequence[Job]]) -> list[str]:
    """Return the overrides in which jobs of one group differ."""
    differ: dict[str, None] = {}
    for jobs in groups:
        settings = [dict(item.partition("=")[::2] for item in job.overrides) for job in jobs]
        differ |= {key: None for key in settings[0] if len({each.get(key) for each in settings}) > 1}
    return list(differ)


def fits(reference: Reference, job: Job) -> bool:
    """Return whether a published value is of the setting that a job runs."""
    return all(str(lookup(job.config, key)) == str(value) for key, value in reference.where.items())
