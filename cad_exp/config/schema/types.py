"""What a setting takes: its type, range and choices, in words that errors and the reference share.

Nothing is converted but one thing: a single value where a list belongs is a list of one. So `true` is no number, 1.5 no
whole number, and a text no list of its letters.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import GetCoreSchemaHandler
from pydantic_core import PydanticCustomError, core_schema

from cad_exp.config.listed import NUMBERS, TEXTS, WHOLE, as_list, shown
from cad_exp.config.names import check_name
from cad_exp.utils.errors import UserError, closest

KEY = "{key}"  # stands in a reason that is a whole sentence; else the sentence is "key=value reason"
HUGE = 1_000_000  # of whatever is counted: more is a slip of the pen


def wrong(reason: str) -> PydanticCustomError:
    """Return the error of a value that a setting does not take."""
    return PydanticCustomError("wrong", "{reason}", {"reason": reason})


class Kind:
    """A kind of value: subclasses return the value or raise `wrong`, and say in words what they take."""

    def check(self, value: object) -> Any:
        """Return the value; raise `wrong` for one that the setting does not take."""
        raise NotImplementedError

    def allowed(self) -> str:
        """Return what the setting takes, in words that errors and the reference share."""
        raise NotImplementedError

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(self.check)


@dataclass(frozen=True)
class Number(Kind):
    """A finite number; `above` and `below` are excluded, `least` and `most` are included."""

    above: float | None = None
    least: float | None = None
    below: float | None = None
    most: float | None = None

    def check(self, value: object) -> Any:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not _finite(value):
            raise wrong(f"is no number: use {self.allowed()}")
        within = (
            (self.above is None or value > self.above)
            and (self.least is None or value >= self.least)
            and (self.below is None or value < self.below)
            and (self.most is None or value <= self.most)
        )
        if not within:
            raise wrong(f"is out of range: use {self.allowed()}")
        return value

    def allowed(self) -> str:
        ends = [f"above {self.above:,.10g}"] if self.above is not None else []
        ends += [f"of at least {self.least:,.10g}"] if self.least is not None else []
        ends += [f"below {self.below:,.10g}"] if self.below is not None else []
        ends += [f"at most {self.most:,.10g}"] if self.most is not None else []
        return f"a number {' and '.join(ends)}".strip()


@dataclass(frozen=True)
class Whole(Kind):
    """A whole number within its ends, which are included."""

    least: int = 0
    most: int = HUGE
    why: str = ""
    step: int = 1

    def check(self, value: object) -> Any:
        if isinstance(value, bool) or not isinstance(value, int):
            raise wrong(f"is no whole number: use {self.allowed()}")
        if not self.least <= value <= self.most or value % self.step:
            raise wrong(f"is out of range: use {self.allowed()}")
        return value

    def allowed(self) -> str:
        what = {1: "a whole number", 2: "an even number"}.get(self.step, f"a multiple of {self.step}")
        return f"{what} of at least {self.least:,} and at most {self.most:,}{self.why}"


@dataclass(frozen=True)
class Flag(Kind):
    """true or false."""

    def check(self, value: object) -> Any:
        if not isinstance(value, bool):
            raise wrong(f"is neither true nor false: use {self.allowed()}")
        return value

    def allowed(self) -> str:
        return "true or false"


@dataclass(frozen=True)
class Text(Kind):
    """A text; an empty one only where that means something."""

    empty: bool = False

    def check(self, value: object) -> Any:
        if not isinstance(value, str):
            quotes = "what YAML takes for something else (on, no, null, 1984) stands in quotes"
            raise wrong(f"is no text: use {self.allowed()}; {quotes}")
        if not value.strip() and not self.empty:
            raise wrong(f"{KEY} is empty: use {self.allowed()}")
        return value

    def allowed(self) -> str:
        return "a text, which may be empty" if self.empty else "a text"


class Choice(Kind):
    """One of several names."""

    def __init__(self, *names: str) -> None:
        self._names = names

    @property
    def names(self) -> tuple[str, ...]:
        """The names."""
        return self._names

    def check(self, value: object) -> Any:
        if not isinstance(value, str) or value not in self.names:
            raise wrong(unknown(value, self.names))
        return value

    def allowed(self) -> str:
        return ", ".join(self.names)


@dataclass(frozen=True)
class Is(Kind):
    """What an option says of itself, and nobody can change."""

    value: bool

    def check(self, value: object) -> Any:
        if value is not self.value:
            raise wrong(f"is of the option itself, {self.allowed()}: leave it out")
        return value

    def allowed(self) -> str:
        return str(self.value).lower()


def unknown(value: object, names: tuple[str, ...]) -> str:
    """Explain why a value is none of these names, with the one that may be meant."""
    close = closest(value, names)
    hint = f"did you mean '{close}'? " if close else ""
    return f"is unknown: {hint}There are: {', '.join(names)}"


class Name(Kind):
    """A name that can stand in the name of a run's folder."""

    def check(self, value: object) -> Any:
        Text(empty=True).check(value)
        try:
            return check_name(value, KEY)
        except UserError as error:
            raise wrong(str(error)) from error

    def allowed(self) -> str:
        return "a name for folders: letters, digits, - and _"


class Device(Kind):
    """A kind of device, with a number where there are several."""

    names = ("auto", "cpu", "cuda", "mps")

    def check(self, value: object) -> Any:
        if not isinstance(value, str) or not re.fullmatch(r"auto|(cpu|cuda|mps)(:\d{1,3})?", value):
            raise wrong(unknown(value, (*self.names, "cuda:0")))
        return value

    def allowed(self) -> str:
        return "auto, cpu, cuda, mps or, with a number, cuda:0"


@dataclass(frozen=True)
class Several(Kind):
    """A list; one value is a list of one. null is an empty list, unless the setting takes null itself."""

    of: Kind
    least: int = 0

    def check(self, value: object) -> Any:
        try:
            items = as_list(value, self.kind, KEY)
        except UserError as error:
            raise wrong(str(error)) from error
        if len(items) < self.least:
            raise wrong(f"{KEY} is empty: use {self.allowed()}")
        for item in items:
            try:
                self.of.check(item)
            except PydanticCustomError as error:
                raise wrong(f"{KEY} holds {shown(item)}, which {error.message().removeprefix(f'{KEY} ')}") from error
        return tuple(items)

    @property
    def kind(self) -> str:
        """The word for what the list holds."""
        return WHOLE if isinstance(self.of, Whole) else NUMBERS if isinstance(self.of, Number) else TEXTS

    def allowed(self) -> str:
        end = "" if self.least == 0 else f", at least {self.least}"
        return f"a list{end}; each {self.of.allowed()}"


@dataclass(frozen=True)
class Special(Kind):
    """What one setting alone takes: a check of its own, and its words."""

    function: Callable[[Any], Any]
    words: str

    def check(self, value: object) -> Any:
        return self.function(value)

    def allowed(self) -> str:
        return self.words


def _finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number that no float holds
        return False


SEEDS = 2**32 - 1  # the largest seed that every random generator takes
Seed = Annotated[int, Whole(0, SEEDS)]
Count = Annotated[int, Whole(1)]
Steps = Annotated[int, Whole(1, 1000)]
Batch = Annotated[int, Whole(1, 65_536)]
Share = Annotated[float, Number(above=0, most=1)]
Rate = Annotated[float, Number(least=0, most=1)]
Guidance = Annotated[float, Number(least=0, most=1000)]
Positive = Annotated[float, Number(above=0, most=1e9)]
Bool = Annotated[bool, Flag()]
Str = Annotated[str, Text()]
Anything = Annotated[str, Text(empty=True)]
Resamples = Annotated[int, Whole(40, HUGE, ", for an interval of 95 %")]
