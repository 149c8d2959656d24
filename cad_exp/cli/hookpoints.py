"""The command `python -m cad_exp hookpoints`: every place of a model whose activations can be read, and its kind."""

from __future__ import annotations

import sys
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from cad_exp.utils import console, process
from cad_exp.utils.errors import UserError

HELP = """\
Every place of a model whose activations can be read: what activations.hookpoints takes.

  python -m cad_exp hookpoints                                        of the built-in model
  python -m cad_exp hookpoints model=sd14                             loads the model
  python -m cad_exp hookpoints model=local model.path=FOLDER          a diffusers folder on this machine

The kinds stand first: each of them, a name, or a pattern of names such as 'up_blocks.*' can be asked for."""


def show(rows: list[tuple[str, str]]) -> None:
    """Print the kinds with how many places each has, then every place in the order of the forward pass."""
    from cad_exp.representations.hookpoints import KINDS

    kinds = Table(title="kinds", title_justify="left", header_style="bold")
    for column in ("kind", "places", "what it is"):
        kinds.add_column(column)
    for kind, what in KINDS.items():
        kinds.add_row(kind, str(sum(each == kind for _, each in rows)), what)
    console.console().print(kinds)
    for name, kind in rows:
        console.console().print(f"{escape(name)}  [dim]{kind}[/]", soft_wrap=True)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; the exit code is 0, or 2 when the command is wrong."""
    from cad_exp.config import options
    from cad_exp.config.arguments import without_flags

    arguments = sys.argv[1:] if arguments is None else arguments
    if {"-h", "--help"} & set(arguments):
        print(HELP)
        return 0
    try:
        own, given = without_flags(arguments, "python -m cad_exp hookpoints")
        show(_places(given, [options.conf_folder(), *own]))
    except UserError as error:
        console.error(str(error))
        return process.MISUSED
    return 0


def _places(given: list[str], folders: list[Path]) -> list[tuple[str, str]]:
    """Return (name, kind) of every hookpoint of the model that the overrides name."""
    from cad_exp.config import grammar
    from cad_exp.config.resolve import resolve
    from cad_exp.pipeline.search.plan import composed
    from cad_exp.pipeline.stages.model import Model

    grammar.one_value_each(grammar.parse(given, folders))
    settings = resolve(composed("config", ["task=probe", *given], folders), folders[1:])["model"]
    Model.of(settings).requires()

    from cad_exp.models.pipeline import DiffusionModel
    from cad_exp.representations.hookpoints import find_hookpoints

    console.quiet_libraries()
    model = DiffusionModel.load(settings["path"], settings["revision"], "cpu", name=settings["name"])
    return [(each.name, each.kind) for each in find_hookpoints(model)]
