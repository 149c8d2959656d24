"""What a command line says: flags, overrides, config folders. Hydra's flags, read without its usage page.

An override is whatever is no flag and no flag's value: `key=value`, `+key=value`, `++key=value`, `~key`.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from cad_exp.config import options
from cad_exp.utils.errors import UserError

if TYPE_CHECKING:
    from _typeshed import SupportsWrite

INFO = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")
REFUSED = {
    "config_name": "cad_exp has one configuration: add options of your own with --config-dir FOLDER",
    "config_path": "cad_exp has one configuration: add options of your own with --config-dir FOLDER",
    "experimental_rerun": "a run is repeated by its overrides, which stand in config/overrides.yaml of its folder",
    "shell_completion": "completion needs a command of its own name, which 'python -m cad_exp' is not",
}


SETTINGS = (*options.GROUPS, "seed", "hydra")


class WrongFlag(UserError):
    """A flag that is not known, lacks its value or has one that it does not take."""


def named_path(text: str) -> Path:
    """Read an argument that names a file or folder. WrongFlag for an empty one: the current folder was not named."""
    if not text.strip():
        raise WrongFlag(f"'{text}' names no file and no folder: give a path, such as outputs (. is the current folder)")
    return Path(text)


class Parser(argparse.ArgumentParser):
    """argparse whose complaints are UserErrors (WrongFlag) of one sentence.

    settings: names that stand before an equals sign in this command, and are no flags.
    """

    settings: Collection[str] = ()

    def _print_message(self, message: str, file: SupportsWrite[str] | None = None) -> None:
        (file or sys.stderr).write(message)  # argparse would hide that the disk behind the output is full

    def error(self, message: str) -> NoReturn:
        """Raise WrongFlag with one sentence, and the flag that may be meant."""
        wrong = message.removeprefix("unrecognized arguments: ")
        if wrong != message:
            raise WrongFlag(self._unknown(wrong.split()[0]))
        if number := re.fullmatch(r"argument (.*): invalid (int|float) value: '(.*)'", message, re.DOTALL):
            raise WrongFlag(f"{number[1]}: '{number[3]}' is no {'whole ' if number[2] == 'int' else ''}number")
        raise WrongFlag(f"{message.removeprefix('argument ')} (--help shows the flags)")

    def _unknown(self, argument: str) -> str:
        """Explain an argument that is neither a flag of this command nor one that it has a place for."""
        name, equals, value = argument.partition("=")
        if not name.startswith("-"):
            return f"'{argument}' is one argument too many (--help shows what the command takes)"
        key = name.lstrip("-")
        if key.partition(".")[0] in self.settings:
            return f"unknown flag '{name}': {key} is a setting, so write {key}={value if equals else 'VALUE'}"
        refused = {f"--{other.replace('_', '-')}" for other in REFUSED}
        flags = sorted(flag for flag in self._option_string_actions if flag[:2] == "--" and flag not in refused)
        return options.unknown(name, flags, "flag")


@dataclass(frozen=True)
class Arguments:
    """flags: what Hydra is told besides the overrides; sweep: whether -m was given.

    folders: of --config-dir, and those of installed packages.
    """

    overrides: tuple[str, ...]
    folders: tuple[Path, ...]
    flags: tuple[str, ...]
    sweep: bool
    help: bool
    version: bool
    plan: bool


def read(arguments: list[str]) -> Arguments:
    """Take a command line apart; UserError for a flag that is not known, lacks its value or does not go with others."""
    given = _parser().parse_intermixed_args(arguments)
    for name, reason in REFUSED.items():
        if getattr(given, name):
            raise UserError(f"--{name.replace('_', '-')} is not offered: {reason}")
    shown = given.help or given.version
    if not shown:
        _together(given)
    return Arguments(
        overrides=tuple(given.overrides),
        folders=(*given.config_dir, *options.installed()),
        flags=tuple(_flags(given)),
        sweep=given.multirun,
        help=given.help,
        version=given.version,
        plan=given.plan,
    )


def _parser() -> Parser:
    made = Parser("python -m cad_exp", add_help=False)
    made.settings = SETTINGS
    made.add_argument("overrides", nargs="*")
    for names in (["--help", "-h"], ["--version"], ["--plan"], ["--hydra-help"], ["--resolve"], ["--run", "-r"]):
        made.add_argument(*names, action="store_true")
    made.add_argument("--multirun", "-m", action="store_true")
    made.add_argument("--cfg", "-c", choices=["job", "hydra", "all"])
    made.add_argument("--info", "-i", nargs="?", const="all", choices=INFO)
    made.add_argument("--package", "-p")
    made.add_argument("--config-dir", "-cd", type=named_path, action="append", default=[])
    made.add_argument("--shell-completion", "-sc", action="store_true")
    for names in (["--config-name", "-cn"], ["--config-path", "-cp"], ["--experimental-rerun"]):
        made.add_argument(*names)
    return made


def _together(given: argparse.Namespace) -> None:
    """Raise UserError for flags that do not go together."""
    one = {"--cfg": given.cfg, "-m": given.multirun, "--info": given.info, "--run": given.run}
    asked = [name for name, value in one.items() if value]
    if given.plan and (other := [name for name in asked if name != "-m"]):
        raise UserError(f"--plan and {other[0]} do not go together: leave out one of them")
    if len(asked) > 1:
        only = f": {asked[0]} is about one run" if asked[1:] == ["-m"] else ""
        raise UserError(f"{' and '.join(asked)} do not go together{only}: leave out {asked[-1]}")
    for name in ("resolve", "package"):
        if getattr(given, name) and not given.cfg:
            raise UserError(f"--{name} belongs to --cfg, which shows the configuration: --cfg job --{name}")


def _flags(given: argparse.Namespace) -> list[str]:
    """Return the flags as Hydra takes them."""
    flags = [
        f"--{name.replace('_', '-')}" for name in ("hydra_help", "resolve", "run", "multirun") if vars(given)[name]
    ]
    for name in ("cfg", "info", "package"):
        if getattr(given, name):
            flags.append(f"--{name}={getattr(given, name)}")
    return flags


def without_flags(arguments: list[str], program: str, own: Collection[str] = ()) -> tuple[list[Path], list[str]]:
    """Split the arguments of a command without flags of its own into config folders and all others.

    own: settings of the command beside those of a run.
    Raises UserError for a flag that is not known, or a folder that is not there.
    """
    made = Parser(program, add_help=False)
    made.settings = (*SETTINGS, *own)
    made.add_argument("overrides", nargs="*")
    made.add_argument("--config-dir", "-cd", type=named_path, action="append", default=[])
    given = made.parse_intermixed_args(arguments)
    options.exist(given.config_dir)
    return [*given.config_dir, *options.installed()], given.overrides
