"""The overrides of a command, parsed by Hydra's grammar before Hydra composes anything with them.

So a mistake is answered with the argument that holds it and with what to type, not in the words of a grammar.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, QuotedString, Transformer, ValueType
from hydra.errors import HydraException

from cad_exp.config import commands, options
from cad_exp.utils.errors import UserError

_KEY = re.compile(r"(\+\+|\+)?([\w@/-]+(?:\.[\w@/-]+)*)=(.*)", re.DOTALL)

LONGEST = 200  # bytes of a setting's or an option's name: a file of this name could be
SHOWN = 40  # letters of a longer one
MOST = 1000  # values of a sweep that are looked at: range(0,1e9) has no end
SWEEP = "add -m to run them one after the other"
FOLDERS = ("hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir")  # nobody named the current one by an empty text


def parse(items: Sequence[str], folders: Sequence[Path]) -> list[Override]:
    """Parse overrides. UserError that shows how to write the first one that cannot be read.

    folders: all that hold configs, to know which keys are groups.
    """
    parser = OverridesParser.create()
    found = []
    for item in items:
        try:
            found.append(parser.parse_override(item))
        except (HydraException, ValueError, RecursionError) as error:
            raise UserError(_unreadable(item)) from error
        _check_group(found[-1], folders)
    return found


def sweeps(found: Sequence[Override], flag: bool) -> bool:
    """Return whether the command is a sweep, by its flag -m or by hydra.mode=MULTIRUN. UserError if they contradict."""
    modes = [str(item.value()) for item in found if item.key_or_group == "hydra.mode"]
    if flag and modes and modes[-1] != "MULTIRUN":
        raise UserError(f"-m and hydra.mode={modes[-1]} contradict each other: leave out one of them")
    return flag or (bool(modes) and modes[-1] == "MULTIRUN")


def one_value_each(found: Sequence[Override], advice: str = SWEEP) -> None:
    """Raise UserError for an override that names several values, where there is no sweep; advice: what to do then."""
    for item in found:
        if item.is_sweep_override():
            raise UserError(several(item, advice))


def several(item: Override, advice: str = SWEEP) -> str:
    """Explain what to do with an override of several values: a sweep, or one text that holds a comma."""
    written = item.input_line or ""
    match = _KEY.fullmatch(written)
    told = f"'{written}' names several values: {advice}"
    if match is None or item.is_delete() or "." not in item.key_or_group or not re.search(r"[^\W\d]", match[3]):
        return told
    return f"{told}; one text with a comma stands in quotes: {quote(match)}"


def quote(match: re.Match[str]) -> str:
    """Write an override whose value is to be a text, as it is typed in a shell."""
    return _typed(match, commands.quoted(commands.literal(match[3])))


def _typed(match: re.Match[str], value: str) -> str:
    return shlex.quote(f"{match[1] or ''}{match[2]}={value}")


def _unreadable(item: str) -> str:
    """Explain in one sentence why the grammar refuses an override."""
    match = _KEY.fullmatch(item)
    if match is None and re.fullmatch(r"[\w./@-]+", item):
        return f"'{item}' has no value: write {item}=VALUE, or ~{item} to leave it out"
    if match is None or match[3].startswith("="):
        return f"{item!r} is no setting: write key=value, such as edit.ratio=0.1 or concept=church"
    if not match[3].isprintable():
        return f"the value of {match[2]} holds a line break or another sign that is not printed: leave it out"
    listed = re.fullmatch(r"\[([^\[\]]*)\]", match[3], re.DOTALL)
    if listed:
        parts = ",".join(commands.quoted(commands.literal(part.strip())) for part in listed[1].split(","))
        return f"the texts in the list {match[2]} stand in quotes: {_typed(match, f'[{parts}]')}"
    called = re.fullmatch(r"(\w+)\(.*\)", match[3], re.DOTALL)
    if called:
        told = f"{called[1]}(...) of '{item}' is no function with such values"
        return f"{told}; a text stands in quotes: {quote(match)}"
    return f"the value of {match[2]} holds signs with a meaning of their own; a text stands in quotes: {quote(match)}"


def _check_group(item: Override, folders: Sequence[Path]) -> None:
    """Raise UserError for an override of a group that Hydra would refuse in its own words."""
    group, written = item.key_or_group, item.input_line or ""
    if not group:
        raise UserError(f"'{written}' names no setting: write key=value, or ~key to leave a key out")
    if len(group.encode(errors="replace")) > LONGEST:
        raise UserError(f"'{group[:SHOWN]}...' is no setting: a name of {len(group):,} letters")
    if group == "hydra":
        raise UserError(f"'{written}' is no setting: Hydra's own are hydra.run.dir and others (--hydra-help)")
    if group in FOLDERS and not item.is_delete() and not _text(item).strip():
        raise UserError(f"{group} is empty: name a folder, such as {group}=first (. is the current folder)")
    if item.is_interval_sweep():
        raise UserError(f"'{written}' names no single values: list them, such as seed=0,1,2, or use range(0,3)")
    if not _is_group(group, folders):
        return
    needed = group in options.GROUPS and group != "experiment"
    if item.is_delete() and needed:
        raise UserError(f"'{written}' leaves out what every run needs: choose another {group}={group.upper()} instead")
    if needed and (item.is_add() or item.is_force_add() or item.package is not None):
        raise UserError(f"'{written}' chooses a second {group}, and a run has one: write {group}={group.upper()}")
    check_choice(item, folders)


def _text(item: Override) -> str:
    """Return an override's value as a text, '' for null."""
    value = item.value()
    return "" if value is None else value.text if isinstance(value, QuotedString) else str(value)


def check_choice(item: Override, folders: Sequence[Path]) -> None:
    """Raise UserError where an option of a group is chosen by what the grammar reads as no text: 1984, null, true."""
    group = item.key_or_group
    if item.is_delete() or not _is_group(group, folders):
        return
    if not item.is_sweep_override():
        chosen = [(item.value(), (item.input_line or "").partition("=")[2])]
    elif item.value_type == ValueType.GLOB_CHOICE_SWEEP:  # which finds names only
        return
    else:
        chosen = [(value, Transformer.str(value)) for value in islice(item.sweep_iterator(), MOST)]
    for value, written in chosen:
        if isinstance(value, list) and group in options.GROUPS and group != "experiment":
            told = f"{group}={written} is a list, and a run has one {group}: write {group}={group.upper()}"
            raise UserError(f"{told}; a sweep over several is -m {group}={written.strip('[]')}")
        long = len(written.encode(errors="replace")) > LONGEST
        if not long and (_named(value) or (isinstance(value, list) and all(map(_named, value)))):
            continue
        known = list(options.options(group, folders))
        if written not in known:
            raise UserError(options.unknown(f"{written[:SHOWN]}..." if long else written, known, group))
        what = "nothing" if value is None else "true or false" if isinstance(value, bool) else "a number"
        name = shlex.quote(f"{group}={commands.quoted(written)}")
        raise UserError(f"{group}={written} is read as {what}, not as a name: write {name}")


def _is_group(key: str, folders: Sequence[Path]) -> bool:
    return any(os.path.isdir(folder / key) for folder in folders)  # also of a key too long for a name


def _named(value: object) -> bool:
    return isinstance(value, (str, QuotedString))
