"""The command `python -m cad_exp latents`: pages of single latents of a finished run of task=sae."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from cad_exp.config.arguments import Parser, WrongFlag
from cad_exp.utils import console, process
from cad_exp.utils.errors import UserError, choose

if TYPE_CHECKING:
    from cad_exp.pipeline.stages.cells import Cell

HELP = """\
Draws the page of a latent: its images, when it acts, which labels it tells, which prompts it resembles.

  python -m cad_exp latents outputs/RUN 17 203                    into outputs/RUN/latents
  python -m cad_exp latents outputs/RUN 17 --hookpoint mid_block.attentions.0

RUN is the folder of a finished run of task=sae. Its tokens come from the cache; what is not there is made again."""


def parser() -> Parser:
    """Return what reads the command line."""
    made = Parser("python -m cad_exp latents", description=HELP, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("folder", type=Path, help="of a finished run of task=sae")
    made.add_argument("latents", type=int, nargs="+", metavar="LATENT", help="numbers of latents, from 0")
    made.add_argument("--hookpoint", help="where the run has several places (the first)")
    made.add_argument("--k", type=int, help="where the run has several k (the first)")
    made.add_argument("--width", help="where the run has several widths (the first)")
    made.add_argument("--to", type=Path, metavar="FOLDER", help="where the pages go (latents/ in the run's folder)")
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
    run = load_results(folder)["run"]
    config = run["config"]
    graph = preflight.check(config)
    if not isinstance(graph, Sae):
        raise UserError(f"'{given.folder}' is a run of task={run.get('task')}: pages are of latents of task=sae")
    to = resolve(given.to) if given.to else folder / "latents"
    try:
        to.mkdir(parents=True, exist_ok=True)  # before what takes minutes
    except OSError as error:
        raise UserError(f"nothing can be written into '{to}' ({error.strerror}): give another --to") from None

    from cad_exp.pipeline.held_out import HeldOut  # torch: only once all is known to be there
    from cad_exp.pipeline.latent_pages import write
    from cad_exp.pipeline.runtime import Runtime
    from cad_exp.pipeline.stages.cells import cells

    console.quiet_libraries()
    runtime = Runtime(config["runtime"], folder / ".cache")
    if not runtime.holds(graph.features):
        console.say("the cache no longer holds what this run made: it is made again", style="yellow")
    held = HeldOut(runtime, graph.features, _place(cells(runtime, graph.features.autoencoders), given))
    if wrong := [latent for latent in given.latents if not 0 <= latent < held.autoencoder.width]:
        raise UserError(f"there is no latent {wrong[0]}: this dictionary has 0 to {held.autoencoder.width - 1}")
    found = write(held, given.latents, to, config["model"]["name"])
    runtime.close()
    return found


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
