"""The flag --plan: show what a command would do, and do nothing.

For every run: its config with nothing left open, and the stages of its graph that come from the cache or will be made.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rich.table import Table

from cad_exp.config import grammar
from cad_exp.pipeline import combinations
from cad_exp.pipeline.preflight import Graph
from cad_exp.pipeline.stage import Stage
from cad_exp.pipeline.stage import graph as nodes_of
from cad_exp.pipeline.stages.instead import Nearest
from cad_exp.pipeline.stages.strength import Strength
from cad_exp.utils import console
from cad_exp.utils.errors import UserError
from cad_exp.utils.paths import resolve as resolve_path


def show(overrides: Sequence[str], sweep: bool, folders: list[Path]) -> None:
    """Print the plan of one run, or of every run of a sweep.

    Raises:
        UserError: whatever would be refused before the work; of a sweep after the plans of the runs that can work.
    """
    parsed = grammar.parse(overrides, folders)
    sweep = grammar.sweeps(parsed, sweep)
    if not sweep:
        grammar.one_value_each(parsed)
    runs = list(combinations.sweep(overrides, folders) if sweep else combinations.each([list(overrides)], folders))
    refused = [run for run in runs if run.graph is None]
    for number, run in enumerate(runs):
        if run.graph is None or run.config is None:
            continue
        if sweep:
            console.say(f"\nrun {number + 1} of {len(runs)}: {' '.join(run.overrides)}", style="bold")
        else:
            console.page(as_yaml(run.config))
        console.console().print(stages(run.config, run.graph))
    if refused:
        raise UserError(combinations.told(refused, len(runs)) if sweep else refused[0].error)


def as_yaml(config: dict[str, Any]) -> str:
    """Return a resolved config as YAML."""
    import yaml

    return str(yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True, width=110))


def stages(config: dict[str, Any], graph: Graph) -> Table:
    """Return a table of the kinds of stage in a graph, in the order in which they are made."""
    from cad_exp.pipeline.runtime import Runtime  # torch, which knows the device

    there = config["runtime"]["cache"]
    with ExitStack() as stack:
        # a cache that is not there holds nothing, and is not to be made by a look at it
        kept = resolve_path(there) if there and os.path.isdir(resolve_path(there)) else None
        place = kept or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        runtime = Runtime(config["runtime"] | {"cache": str(place)}, place)
        found: dict[str, list[bool]] = {}
        for node in nodes_of(*graph.nodes()):
            if isinstance(node, Stage):
                found.setdefault(node.folder, []).append(runtime.holds(node))
        runtime.close()
    chooses = any(isinstance(node, (Strength, Nearest)) for node in nodes_of(*graph.nodes()))
    made = "will be made, at most" if chooses else "will be made"  # a choice leaves out what it does not take
    table = Table("stage", "parts", "from the cache", made, box=None, header_style="bold")
    for folder, held in found.items():
        table.add_row(folder.replace("_", " "), str(len(held)), str(sum(held)), str(len(held) - sum(held)))
    return table
