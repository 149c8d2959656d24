"""The work of task=analyse, in order, and what is written down of it."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from cad_exp.config.resolve import Config
from cad_exp.pipeline.drawing import draw, mirror
from cad_exp.pipeline.runtime import Runtime
from cad_exp.pipeline.tasks.analyse import Analyse
from cad_exp.reporting.results import Results
from cad_exp.reporting.tracking.tracker import Tracker
from cad_exp.utils import console, distributed
from cad_exp.utils.io import atomic

TABLE, PICTURE = "analysis.parquet", "analysis.png"


def facts(config: Config) -> dict[str, Any]:
    """Return what results.json says of the run, beside what it says of every run."""
    return {"images": config["images"]["name"], "analysis": config["analysis"]["name"]}


def perform(runtime: Runtime, graph: Analyse, config: Config, results: Results, folder: Path) -> None:
    """Get what the analysis looks at, look, and write down what it found."""
    stage = graph.analysis
    with results.time("images"):
        console.stage(f"images: {sum(part.count for part in stage.images)} of {config['images']['name']}")
        runtime.all(stage.images, "images")
    if stage.activations:
        with results.time("activations"):
            console.stage(f"activations at t = {', '.join(map(str, stage.timesteps))}")
            runtime.all(stage.activations, stage.activations[0].what)
            if stage.untrained:
                runtime.all(stage.untrained, stage.untrained[0].what)
    with results.time("analysis"):
        console.stage(f"analysis: {stage.analysis.name}")
        found = runtime.get(stage)
    if not distributed.main():
        return
    with atomic(folder / TABLE) as draft:
        found.table.to_parquet(draft)
    results.add(*found.metrics)
    results.run["verdict"] = found.verdict


def show(runtime: Runtime, graph: Analyse, config: Config, results: Results, folder: Path, tracker: Tracker) -> None:
    """Complete the results, then draw what was found and mirror all to the tracker."""
    made = draw({PICTURE: partial(_views, runtime, graph, config, folder / PICTURE)}, results)
    mirror(tracker, results, {Path(name).stem: folder / name for name in made}, folder)


def _views(runtime: Runtime, graph: Analyse, config: Config, path: Path) -> None:
    from cad_exp.reporting.figures import analysis

    title = f"{config['analysis']['name'].replace('_', ' ').capitalize()} of {config['model']['name']}"
    analysis.draw(runtime.get(graph.analysis).views, path, title)
