"""Names that a config may choose (estimators, judges, ...), and the class behind each one, loaded when it is used.

A name comes from one of three places: the table of this package; a laboratory in it that announces itself by a file
`entry_points.txt`, as an installed package would; an installed package, by entry points of the group `cad_exp.KIND`.
A config may also name a class of anybody's by its dotted path: `_target_: my_package.my_module.MyClass`.
"""

from __future__ import annotations

import configparser
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib import metadata
from inspect import signature
from pathlib import Path
from typing import Any

from cad_exp.utils.errors import UserError, choose, reason_of

HOME = "cad_exp"
TARGET = "_target_"
RESERVED = ("name", TARGET)  # settings that choose the class, and are not the class's own
_PACKAGE = Path(__file__).parents[1]


@dataclass(frozen=True)
class Entry:
    """Where a name leads: `target` is "package.module:Class", `origin` the package with its version.

    facts: what the class says of itself, for those who must know before they load it. also: who else has the name.
    """

    target: str
    origin: str = HOME
    facts: Mapping[str, Any] = field(default_factory=dict)
    also: str | None = None

    @property
    def module(self) -> str:
        """The dotted name of the module that defines the class."""
        return self.target.partition(":")[0]


class Registry:
    """The names of one kind, each with a class that is loaded when it is asked for.

    kind: "estimator", "judge", ...; own: name -> "package.module:Class" of this package, or an Entry with facts.
    usual: facts of all those of `own` that are no Entry.
    """

    def __init__(self, kind: str, own: Mapping[str, str | Entry] | None = None, usual: Mapping[str, Any] | None = None):
        self.kind = kind
        self._own = {
            name: each if isinstance(each, Entry) else Entry(each, facts=usual or {})
            for name, each in (own or {}).items()
        }

    @cached_property
    def _entries(self) -> dict[str, Entry]:
        """Every name, ours first. Of two that share a name the first stays, and knows of the other."""
        found = dict(self._own)
        for name, entry in [*shipped(self.kind), *installed(self.kind)]:
            first = found.get(name)
            found[name] = entry if first is None else Entry(first.target, first.origin, first.facts, entry.origin)
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def names(self) -> list[str]:
        """Every name, ours first. Nothing is loaded."""
        return list(self._entries)

    def where(self, name: str) -> Entry:
        """Where a name, or a dotted path, leads. Raises UserError for an unknown name, with the closest one."""
        if not isinstance(name, str):
            raise UserError(f"{name!r} is no name of a {self.kind}: there are {', '.join(self._entries)}")
        if "." in name:
            module, _, attribute = name.replace(":", ".").rpartition(".")
            return Entry(f"{module}:{attribute}", TARGET)
        return self._entries[choose(name, self._entries, self.kind)]

    def get(self, name: str) -> Any:
        """Return the class of a name or dotted path. Raises UserError if it is unknown, claimed twice, or broken."""
        entry = self.where(name)
        if entry.also:
            raise UserError(
                f"{self.kind} '{name}' is claimed by {entry.origin} and by {entry.also}: rename it in {entry.also}, "
                "or uninstall that package"
            )
        return _load(entry, f"{self.kind} '{name}'" + (f" of {entry.origin}" if entry.origin != TARGET else ""))

    def of(self, settings: Mapping[str, Any]) -> Any:
        """Return the class that a config group chooses: by `_target_` if it has one, else by `name`."""
        return self.get(chosen(settings))

    def make(self, settings: Mapping[str, Any]) -> Any:
        """Make an object of the chosen class. Raises UserError for settings that it does not take."""
        cls = self.of(settings)
        return cls(**fitting(cls, settings, f"{self.kind} {settings.get('name') or chosen(settings)}"))

    def fact(self, name: str, key: str) -> Any:
        """Return what a class says of itself under this key; where the entry holds it, nothing is loaded."""
        facts = self.where(name).facts
        return facts[key] if key in facts else getattr(self.get(name), key)


def chosen(settings: Mapping[str, Any]) -> str:
    """Return the name, or the dotted path, of the class that a config group chooses."""
    target = settings.get(TARGET)
    if target is not None and "." not in str(target):
        raise UserError(f"_target_={target} is no dotted path of a class: write package.module.Class")
    return str(settings["name"] if target is None else target)


def fitting(cls: Any, settings: Mapping[str, Any], what: str, given: int = 0) -> dict[str, Any]:
    """Return the settings that are a class's own. Raises UserError unless it can be called with them.

    what: the class in words. given: the number of arguments that it gets before them.
    """
    own = {key: value for key, value in settings.items() if key not in RESERVED}
    try:
        signature(cls).bind(*range(given), **own)
    except TypeError as error:
        raise UserError(f"{what} does not take these settings: {error}") from error
    return own


def shipped(kind: str, package: Path = _PACKAGE) -> Iterator[tuple[str, Entry]]:
    """(name, entry) of what lies in folders of this package with an `entry_points.txt` of their own."""
    for file in sorted(package.glob("*/entry_points.txt")):
        parser = configparser.ConfigParser(delimiters=("=",))
        parser.optionxform = str  # type: ignore[method-assign, assignment]  # names keep their capitals
        parser.read_string(file.read_text(encoding="utf-8"))
        if parser.has_section(f"{HOME}.{kind}"):
            for name, target in parser.items(f"{HOME}.{kind}"):
                yield name, Entry(target.strip(), f"{HOME}.{file.parent.name}")


def installed(kind: str) -> Iterator[tuple[str, Entry]]:
    """(name, entry) of what installed packages add."""
    for point in points(kind):
        yield point.name, Entry(point.value, package(point))


def points(kind: str) -> list[metadata.EntryPoint]:
    """Return the entry points of installed packages for one kind, by name."""
    return sorted(_points().select(group=f"{HOME}.{kind}"), key=lambda point: point.name)


def package(point: metadata.EntryPoint) -> str:
    """Return the package of an entry point, with its version."""
    return f"{point.dist.name} {point.dist.version}" if point.dist else point.value


@cache
def _points() -> metadata.EntryPoints:
    """Of all packages: to read them takes longer than to choose among them."""
    found: Any = metadata.entry_points()  # its type is another one in every version of Python
    points: metadata.EntryPoints = found
    return points


def _load(entry: Entry, what: str) -> Any:
    """Load the object behind an entry. A fault of somebody else's code is one sentence that names its package."""
    point = metadata.EntryPoint("", entry.target, "")
    if entry.origin == HOME:
        return point.load()
    try:
        return point.load()
    except Exception as error:  # whatever a module of somebody else's raises while it is imported
        told = f"{what} cannot be loaded from {entry.target} ({reason_of(error, 200)})"
        if isinstance(error, ModuleNotFoundError) and error.name == point.module.partition(".")[0]:
            told += ": give the command in the folder that holds this module, or name the folder in PYTHONPATH"
        raise UserError(told) from error
