"""The reference of all settings, docs/configuration.md, from their types: `python -m cad_exp.config.reference`."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, get_args, get_origin

from pydantic.fields import FieldInfo

from cad_exp.config.schema import RunConfig
from cad_exp.config.schema.base import ByName, Group
from cad_exp.config.schema.types import Kind

HEAD = """\
# Configuration

Every setting of a run, what it takes and what it means. A setting is given on the command line as `group.key=value`,
an option of a group as `group=option`. `python -m cad_exp --help` lists the options. `null` leaves a setting open.
A single value where a list belongs is a list of one. Whatever is wrong is refused before any work, in one sentence.
Many options of a group share keys. A section leaves out those that a section before it has shown.
The [glossary](concepts.md#glossary) explains the words.
`--cfg job` at the end of a command prints the values of its run.

This page is made from the types in `cad_exp/config/schema/` by `python -m cad_exp.config.reference`.
"""


@dataclass(frozen=True)
class Setting:
    """One setting: dotted key, the class that holds it, what it takes (None: a mapping), whether null is allowed."""

    key: str
    owner: type[Group]
    kind: Kind | None
    nullable: bool
    words: str
    description: str


def settings(cls: type[Group] = RunConfig, key: str = "") -> Iterator[Setting]:
    """Yield all settings below a class, in the order of its fields; of a group with several classes, those of each."""
    for name, field in cls.model_fields.items():
        dotted, inner = f"{key}.{name}".lstrip("."), classes(field)
        kind, nullable = _kind(field), type(None) in get_args(field.annotation)
        if not inner or nullable:
            yield Setting(dotted, cls, kind, nullable, _words(field, nullable, bool(inner)), field.description or "")
        for each in inner:
            yield from settings(each, dotted)


def classes(field: FieldInfo) -> tuple[type[Group], ...]:
    """Return the classes of a group: several where its name decides; none for a plain setting."""
    for item in field.metadata:
        if isinstance(item, ByName):
            return item.classes
    found = [each for each in (field.annotation, *get_args(field.annotation)) if isinstance(each, type)]
    return tuple(each for each in found if issubclass(each, Group))


def _kind(field: FieldInfo) -> Kind | None:
    """Return what a plain setting takes, whether null is allowed beside it or not; None for a mapping."""
    options = [part for part in get_args(field.annotation) if part is not type(None)]
    if _mapping(field):
        return None
    return next((item for item in (*field.metadata, *_kinds(options)) if isinstance(item, Kind)), None)


def _kinds(types: Iterable[object]) -> list[Kind]:
    return [item for part in types for item in getattr(part, "__metadata__", ()) if isinstance(item, Kind)]


def _mapping(field: FieldInfo) -> tuple[Any, ...]:
    """Return the types of names and values of a setting that is a mapping; nothing for another one."""
    found = [part for part in (field.annotation, *get_args(field.annotation)) if get_origin(part) is dict]
    return get_args(found[0]) if found and not any(isinstance(item, Kind) for item in field.metadata) else ()


def _words(field: FieldInfo, nullable: bool, group: bool) -> str:
    kind, words = _kind(field), "the settings below" if group else "names, each with its settings"
    if field.annotation is type(None):
        return "null"
    if kind:
        words = kind.allowed()
    elif pair := _mapping(field):
        names, values = _kinds(pair[:1]), _kinds((pair[1], *get_args(pair[1])))
        if names and values:
            words = f"for each of {names[0].allowed()}: {values[0].allowed()}"
    return f"{words}; or null" if nullable else words


def text() -> str:
    """Write the whole page, in Markdown."""
    parts, shown = [HEAD], dict[type[Group], str]()
    for name, field in RunConfig.model_fields.items():
        inner = classes(field)
        parts.append(f"## {name}\n\n{field.description}\n")
        if not inner:
            parts.append(_table([each for each in settings() if each.key == name]))
        for cls in inner:
            parts += _section(name, cls, shown.get(cls), inner)
            shown.setdefault(cls, name)
    return "\n".join(parts)


def _section(group: str, cls: type[Group], before: str | None, shown: tuple[type[Group], ...]) -> list[str]:
    """Write a class of a group: its keys, without those that its base class has in the same way.

    before: the group that has shown the class already. shown: all classes of the group that have a section.
    """
    base = next((each for each in cls.__mro__[1:] if each in shown), None)
    rows = [each for each in settings(cls, group) if base is None or not _inherited(each, base, group)]
    head = [f"### {group}: {cls.title}\n\n{_first_line(cls)}\n"] if len(shown) > 1 else []
    if before:
        return [*head, f"The keys are those of `{before}`.\n"]
    return [*head, _table(rows)] if rows else head


def _inherited(setting: Setting, base: type[Group], group: str) -> bool:
    return setting.key in {each.key for each in settings(base, group) if each.words == setting.words}


def _first_line(cls: type[Group]) -> str:
    return (cls.__doc__ or "").strip().splitlines()[0]


def _table(rows: list[Setting]) -> str:
    lines = [f"| `{row.key}` | {_cell(row.words)} | {_cell(row.description)} |" for row in rows]
    return "\n".join(["| setting | takes | meaning |", "|---|---|---|", *lines, ""])


def _cell(words: object) -> str:
    return str(words).replace("|", "\\|")


if __name__ == "__main__":
    sys.stdout.write(text())
