"""The work of task=probe, in order, and what is written down of it."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from cad_exp.config.resolve import Config
from cad_exp.evaluation import probing
from cad_exp.pipeline.drawing import draw, mirror
from cad_exp.pipeline.runtime import Runtime
from cad_exp.pipeline.tasks.probe import Probe
from cad_exp.reporting.results import Results
from cad_exp.reporting.tracking.tracker import Tracker
from cad_exp.utils import console, distributed
from cad_exp.utils.io import atomic

TABLE, PICTURE = "probes.parquet", "probes.png"


def facts(config: Config) -> dict[str, Any]:
    """Return what results.json says of the run, beside what it says of every run."""
    return {"images": config["images"]["name"], "probe": config["probe"]["name"]}


def perform(runtime: Runtime, graph: Probe, config: Config, results: Results, folder: Path) -> None:
    """Read the activations, fit the probes, and write the map and its metrics."""
    stage = graph.probes
    with results.time("images"):
        number = sum(part.count for part in stage.images)
        console.stage(f"images: {number} of {config['images']['name']}")
        runtime.all(stage.images, "images")
    with results.time("activations"):
        console.stage(f"activations at t = {', '.join(map(str, stage.trained[0].timesteps))}")
        for parts in (stage.trained, stage.untrained):
            if parts:
                runtime.all(parts, parts[0].what)
        if stage.encoded:
            runtime.all(stage.encoded, stage.encoded[0].what)
    with results.time("probes"):
        console.stage("probes")
        table = runtime.get(stage)
    if not distributed.main():
        return
    with atomic(folder / TABLE) as draft:
        table.to_parquet(draft)
    for metric in probing.metrics(table, config["probe"]["name"]):
        results.add(metric)
    results.run["verdict"] = probing.verdict(table)


def show(runtime: Runtime, graph: Probe, config: Config, results: Results, folder: Path, tracker: Tracker) -> None:
    """Complete the results, then draw the map and mirror all to the tracker."""
    made = draw({PICTURE: partial(_map, runtime, graph, config, folder / PICTURE)}, results)
    mirror(tracker, results, {Path(name).stem: folder / name for name in made}, folder)


def _map(runtime: Runtime, graph: Probe, config: Config, path: Path) -> None:
    from cad_exp.reporting.figures.probes import probe_map

    probe_map(runtime.get(graph.probes), path, f"What each layer of {config['model']['name']} knows, and when")
