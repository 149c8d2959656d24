"""The work of task=sae, in order, and what is written down of it."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import Any

from cad_exp.config.resolve import Config
from cad_exp.evaluation import features
from cad_exp.pipeline.drawing import draw, mirror
from cad_exp.pipeline.runtime import Runtime
from cad_exp.pipeline.tasks.sae import Sae
from cad_exp.reporting.results import Results
from cad_exp.reporting.tracking.tracker import Tracker
from cad_exp.utils import console, distributed

FOLDER, PICTURE, GALLERY, PAGES = "autoencoders", "features.png", "latents.png", "latents"


def facts(config: Config) -> dict[str, Any]:
    """Return what results.json says of the run, beside what it says of every run."""
    return {"images": config["images"]["name"], "tokens": config["tokens"]["name"], "sae": config["sae"]["name"]}


def perform(runtime: Runtime, graph: Sae, config: Config, results: Results, folder: Path) -> None:
    """Take the tokens, train the autoencoders, and measure them beside their controls."""
    found = graph.features
    every = (*graph.autoencoders.tokens, *found.choice, *found.test)
    with results.time("tokens"):
        console.stage(f"tokens of {sum(each.images.count for each in every)} images of {config['images']['name']}")
        runtime.all([each.images for each in every], "images")
        runtime.all(every, "tokens")
    with results.time("autoencoders"):
        console.stage(f"autoencoders: {config['sae']['name']}, {len(graph.autoencoders.plans)} at each place")
        stages = runtime.get(graph.autoencoders)
    with results.time("features"):
        console.stage("features, beside those of the controls")
        measured = runtime.get(found)
    if not distributed.main():
        return
    for name, stage in stages.items():
        shutil.copytree(runtime.place(stage), folder / FOLDER / name, dirs_exist_ok=True)
    results.add(*measured.metrics)
    results.run["verdict"] = features.verdict(measured.metrics)


def show(runtime: Runtime, graph: Sae, config: Config, results: Results, folder: Path, tracker: Tracker) -> None:
    """Complete the results, then draw what latents do and mirror all to the tracker."""
    functions = {PICTURE: _features, GALLERY: _latents} | ({PAGES: _pages} if config["sae"]["pages"] else {})
    drawings = {name: partial(function, runtime, graph, config, folder / name) for name, function in functions.items()}
    made = draw(drawings, results)
    drawn = {Path(name).stem: folder / name for name in (PICTURE, GALLERY) if name in made}
    pages = {f"{PAGES}/{path.stem}": path for path in sorted((folder / PAGES).glob("*.png"))}
    mirror(tracker, results, drawn | pages, folder)


def _features(runtime: Runtime, graph: Sae, config: Config, path: Path) -> None:
    from cad_exp.reporting.figures.features import dictionaries

    dictionaries(runtime.get(graph.features).metrics, path, f"Sparse features of {config['model']['name']}")


def _latents(runtime: Runtime, graph: Sae, config: Config, path: Path) -> None:
    from cad_exp.pipeline.gallery import gallery
    from cad_exp.pipeline.held_out import HeldOut
    from cad_exp.reporting.figures.latents import latents

    shown = gallery(HeldOut(runtime, graph.features))
    latents(shown, path, f"What latents of {config['model']['name']} act on")


def _pages(runtime: Runtime, graph: Sae, config: Config, folder: Path) -> None:
    from cad_exp.pipeline.held_out import HeldOut
    from cad_exp.pipeline.latent_pages import default_latents, write

    held = HeldOut(runtime, graph.features)
    write(held, default_latents(held, config["sae"]["pages"]), folder, config["model"]["name"])
