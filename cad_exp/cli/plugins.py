"""The command `python -m cad_exp plugins`: every name that a config may choose, and which package it comes from."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from cad_exp.attribution.estimators import ESTIMATORS
from cad_exp.attribution.objectives import OBJECTIVES
from cad_exp.config import options
from cad_exp.config.arguments import WrongFlag, without_flags
from cad_exp.data.labelled import SOURCES
from cad_exp.data.metric_registry import METRICS
from cad_exp.evaluation.analyses import ANALYSES
from cad_exp.evaluation.judges import JUDGES
from cad_exp.interventions.granularity_registry import GRANULARITIES
from cad_exp.interventions.methods import METHODS
from cad_exp.models.families import FAMILIES
from cad_exp.models.sources import MODELS
from cad_exp.representations.probes.registry import PROBES
from cad_exp.representations.sae.registries import ARCHITECTURES, OPTIMISERS
from cad_exp.utils import console, process
from cad_exp.utils.errors import UserError
from cad_exp.utils.registry import HOME, Registry

REGISTRIES: tuple[Registry, ...] = (MODELS, FAMILIES, GRANULARITIES, OBJECTIVES, ESTIMATORS, METHODS, METRICS, JUDGES)
REGISTRIES += (SOURCES, PROBES, ARCHITECTURES, OPTIMISERS, ANALYSES)
HELP = """\
python -m cad_exp plugins [--config-dir FOLDER]

Every class and every option that a config may choose, and where it comes from: cad_exp, an installed package or a
folder of your own. docs/extend.md shows how to add one."""

Row = tuple[str, str, str]  # kind, where it comes from, names


def classes(registry: Registry) -> Iterator[Row]:
    """Yield the names of one kind, by the package that they come from."""
    origins = dict.fromkeys(registry.where(name).origin for name in registry)
    for origin in origins:
        names = [name for name in registry if registry.where(name).origin == origin]
        yield registry.kind, origin, ", ".join(names)


def files(folders: list[Path]) -> Iterator[Row]:
    """Yield the options of every config group, by the folder that they come from."""
    for folder in folders:
        for group in options.groups(folder):
            yield f"{group}=", options.origin(folder), ", ".join(options.options(group, [folder]))


def faults(registries: tuple[Registry, ...] = REGISTRIES) -> Iterator[str]:
    """Yield one sentence for each name of another package that cannot be used."""
    for registry in registries:
        for name in registry:
            entry = registry.where(name)
            if entry.origin == HOME and not entry.also:
                continue
            try:
                registry.get(name)
            except UserError as error:
                yield str(error)


def show(folders: list[Path]) -> None:
    """Print both tables, and below them what is wrong."""
    for title, rows in (
        ("classes", [row for each in REGISTRIES for row in classes(each)]),
        ("options", list(files(folders))),
    ):
        table = Table(title=title, title_justify="left", header_style="bold")
        for column in ("kind", "from", "names"):
            table.add_column(column, overflow="fold")
        for row in rows:
            table.add_row(*(escape(console.clean(cell)) for cell in row))
        console.console().print(table)
    for fault in [*options.faults(), *faults()]:
        console.say(fault, style="yellow")


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; the exit code is 0, or 2 for a wrong flag."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if {"-h", "--help"} & set(arguments):
        print(HELP)
        return 0
    try:
        own, given = without_flags(arguments, "python -m cad_exp plugins")
        if given:
            raise WrongFlag(f"'{given[0]}' is no flag of this command, which has --config-dir FOLDER only")
        show([options.conf_folder(), *own])
    except UserError as error:
        console.error(str(error))
        return process.MISUSED
    return 0
