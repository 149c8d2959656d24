"""The command `python -m cad_exp latents`: pages of single latents of a finished run of task=sae."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cad_exp.config.arguments import Parser, WrongFlag, named_path
from cad_exp.evaluation.variants import AUTOENCODER
from cad_exp.utils import console, process
from cad_exp.utils.errors import UserError, choose
from cad_exp.utils.io import made

if TYPE_CHECKING:
    from cad_exp.pipeline.stages.cells import Cell
    from cad_exp.pipeline.tasks.sae import Sae

HELP = """\
Draws the page of a latent: its images, when it acts, which labels it tells, which prompts it resembles.

  python -m cad_exp latents outputs/RUN 17 203                    into outputs/RUN/latents
  python -m cad_exp latents outputs/RUN 17 --hookpoint mid_block.attentions.0

RUN is the folder of a finished run of task=sae. Its tokens come from the cache; what is not there is made again."""


def parser() -> Parser:
    """Return what reads the command line."""
    made = Parser("python -m cad_exp latents", description=HELP, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("folder", type=named_path, help="of a finished run of task=sae")
    made.add_argument("latents", type=int, nargs="+", metavar="LATENT", help="numbers of latents, from 0")
    made.add_argument("--hookpoint", help="where the run has several places (the first)")
    made.add_argument("--k", type=int, help="where the run has several k (the first)")
    made.add_argument("--width", help="where the run has several widths (the first)")
    made.add_argument(
        "--to", type=named_path, metavar="FOLDER", help="where the pages go (latents/ in the run's folder)"
    )
    return made


def main(arguments: list[str] | None = None) -> int:
    """Run the command line: 0, 1 for a folder that holds no such run or latent, 2 for a wrong flag."""
    try:
        given = parser().parse_args(arguments)
        for path in draw(given):
            console.say(str(path))
    except UserError as error:
        console.error(str(error))
        return process.MISUSED if isinstance(error, WrongFlag) else process.FAILED
    return 0


def draw(given: argparse.Namespace) -> list[Path]:
    """Draw the pages that are asked for; returns the files."""
    from cad_exp.pipeline import preflight
    from cad_exp.pipeline.tasks.sae import Sae
    from cad_exp.reporting.results import FILE, load_results
    from cad_exp.utils.paths import find_folder, resolve

    folder = find_folder(given.folder, "FOLDER")
    if not (folder / FILE).exists():
        raise UserError(f"the folder '{given.folder}' holds no {FILE}: give that of a finished run of task=sae")
    results = load_results(folder)
    run, config = results["run"], results["run"]["config"]
    graph = preflight.check(config)
    if not isinstance(graph, Sae):
        raise UserError(f"'{given.folder}' is a run of task={run.get('task')}: pages are of latents of task=sae")
    _measured(results["metrics"], given)
    to = resolve(given.to) if given.to else folder / "latents"
    with ExitStack() as stack:
        try:
            stack.enter_context(made(to))  # before what takes minutes
        except OSError as error:
            raise UserError(f"nothing can be written into '{to}' ({error.strerror}): give another --to") from None
        return _drawn(graph, config, folder, to, given)


def _drawn(graph: Sae, config: dict[str, Any], folder: Path, to: Path, given: argparse.Namespace) -> list[Path]:
    """Draw the pages of a run's latents into a folder; returns the files."""
    from cad_exp.pipeline.held_out import HeldOut  # torch: only once all is known to be there
    from cad_exp.pipeline.latent_pages import write
    from cad_exp.pipeline.runtime import Runtime
    from cad_exp.pipeline.stages.cells import cells

    console.quiet_libraries()
    runtime = Runtime(config["runtime"], folder / ".cache")
    if not runtime.holds(graph.features):
        console.say("the cache no longer holds what this run made: it is made again", style="yellow")
    every = cells(runtime, graph.features.autoencoders)
    place = _place(every, given)
    _exist(given.latents, every[place].first.autoencoder.width)
    found = write(HeldOut(runtime, graph.features, place), given.latents, to, config["model"]["name"])
    runtime.close()
    return found


def _measured(metrics: Iterable[Mapping[str, Any]], given: argparse.Namespace) -> None:
    """Raise UserError for a place or a latent that no dictionary of the results has: known without the cache."""
    facts = [each["definition"] for each in metrics if each["variant"] == AUTOENCODER]
    facts = [each for each in facts if {"hookpoint", "width"} <= set(each)]
    if given.hookpoint is not None and facts:
        choose(given.hookpoint, dict.fromkeys(each["hookpoint"] for each in facts), "--hookpoint")
    _exist(given.latents, max((each["width"] for each in facts), default=None))


def _exist(latents: Iterable[int], width: int | None) -> None:
    """Raise UserError for a number that no latent of a dictionary has. width: of the dictionary, where it is known."""
    for latent in latents:
        if latent < 0 or (width is not None and latent >= width):
            has = "their numbers begin at 0" if width is None else f"this dictionary has 0 to {width - 1}"
            raise UserError(f"there is no latent {latent}: {has}")


def _place(every: list[Cell], given: argparse.Namespace) -> int:
    """Return the number of the first cell that fits the flags."""
    if given.hookpoint is not None:
        choose(given.hookpoint, [cell.own.hookpoint for cell in every], "--hookpoint")
    asked = {"hookpoint": given.hookpoint, "k": given.k, "width": given.width}
    for number, cell in enumerate(every):
        own = {"hookpoint": cell.own.hookpoint, "k": cell.plan.k, "width": str(cell.plan.width)}
        if all(value is None or own[name] == value for name, value in asked.items()):
            return number
    there = "; ".join(dict.fromkeys(f"--k {cell.plan.k} --width {cell.plan.width}" for cell in every))
    raise UserError(f"no autoencoder of this run fits the flags: there are {there}")
