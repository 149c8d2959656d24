"""The groups of a config as types: no unknown keys, nothing changed afterwards; the class may depend on the name."""

from __future__ import annotations

import re
from collections.abc import Callable
from difflib import get_close_matches
from functools import cache
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, model_validator
from pydantic_core import PydanticCustomError, core_schema

from cad_exp.config import options
from cad_exp.config.schema.types import KEY, Choice, Kind, Text, unknown, wrong
from cad_exp.utils import registry

_DOTTED = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+(?::\w+)?")


class Group(BaseModel):
    """Settings that belong together; the fields are the keys of the YAML."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    title: ClassVar[str] = ""  # for the reference, where a group has several classes

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, given: Any) -> Any:
        if isinstance(given, dict) and cls.model_config.get("extra") != "allow":
            for key in given:
                if key not in cls.model_fields:
                    raise PydanticCustomError("unknown", "{name}", {"name": str(key), "known": list(cls.model_fields)})
        return given


class Own(BaseModel):
    """Beside a Group: an option of the user's own, whose class takes settings that nobody here knows."""

    model_config = ConfigDict(frozen=True, extra="allow")


class ByName:
    """Chooses the class of a group by what is given: most by the name, see `by_name`."""

    def __init__(self, choose: Callable[[dict[str, Any]], type[Group]], *classes: type[Group]) -> None:
        self.choose, self.classes = choose, classes

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        choices = {tag(cls): handler.generate_schema(cls) for cls in self.classes}
        return core_schema.tagged_union_schema(choices, self._tag)

    def _tag(self, given: object) -> str:
        if isinstance(given, Group):
            return tag(type(given))
        return tag(self.choose(given if isinstance(given, dict) else {}))


def by_name(classes: dict[type[Group], tuple[str, ...]], own: type[Group]) -> ByName:
    """Choose the class that has the name of the group among its own; for every other name `own`."""
    names = {name: cls for cls, listed in classes.items() for name in listed}
    return ByName(lambda given: names.get(str(given.get("name")), own), *dict.fromkeys([*classes, own]))


def tag(cls: type[Group]) -> str:
    """Return how a class appears in the place of an error."""
    return f"<{cls.__name__}>"


def is_tag(part: object) -> bool:
    """Return whether a part of an error's place is the tag of a class."""
    return isinstance(part, str) and part.startswith("<")


@cache
def shipped(group: str) -> tuple[str, ...]:
    """Return the names of the options that the package ships for a group."""
    return tuple(sorted(file.stem for file in (options.conf_folder() / group).glob("[!_]*.yaml")))


class Registered(Choice):
    """One of our names, or of a plug-in's: of an installed package, or a dotted path of anybody's class."""

    def __init__(self, kind: str, *names: str) -> None:
        self.ours, self.kind = names, kind

    @property
    def names(self) -> tuple[str, ...]:
        """All names that there are now."""
        return tuple(dict.fromkeys([*self.ours, *plug_ins(self.kind)]))

    def check(self, value: object) -> Any:
        """Return a dotted path, or a name that there is now; raise `wrong` for anything else."""
        return value if isinstance(value, str) and _DOTTED.fullmatch(value) else super().check(value)


@cache
def plug_ins(kind: str) -> tuple[str, ...]:
    """Return the names that other packages give to classes of a kind."""
    return tuple(name for name, _ in [*registry.shipped(kind), *registry.installed(kind)])


class OwnName(Kind):
    """A name of ours or of a user's own class; what only looks like one of ours is a slip of the pen."""

    def __init__(self, *names: str) -> None:
        self.names = names

    def check(self, value: object) -> Any:
        """Return the name; raise `wrong` for what is no text, or only looks like a name of ours."""
        name = Text().check(value)
        close = get_close_matches(name, self.names, n=1, cutoff=0.8)
        if name == "auto" or (close and close[0] not in name):
            raise wrong(f"{unknown(name, self.names)}. A class of your own needs a name less like these")
        return name

    def allowed(self) -> str:
        """Return the names of ours, and that there may be others."""
        return f"{', '.join(self.names)}, or the name of a class of your own"


__all__ = ["KEY", "ByName", "Group", "Own", "OwnName", "Registered", "by_name", "is_tag", "plug_ins", "shipped", "tag"]
