"""One run, from its graph to its table of results: what is made when, and what is written down of it."""

from __future__ import annotations

from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from cad_exp.config.resolve import Config, resolve
from cad_exp.models.content import model_content
from cad_exp.pipeline import preflight, report
from cad_exp.pipeline.identity import program, run_identity
from cad_exp.pipeline.preflight import Graph
from cad_exp.pipeline.runtime import Runtime
from cad_exp.reporting import run_folder
from cad_exp.reporting.results import Results, run_info
from cad_exp.reporting.tracking.session import track
from cad_exp.utils import console, distributed
from cad_exp.utils.errors import UserError


def run(config: Config, folder: str | Path) -> dict[str, Any]:
    """Do what the config's task asks; return the content of `folder`/results.json.

    `config` is the composed config as plain dicts (see conf/). What an earlier run of the same settings has already
    made comes out of the cache (`runtime.cache`), so a run that was killed continues where it was. Results that
    lie in `folder` already stay until the new ones are complete.

    Raises:
        UserError: a folder that holds other files, or a finished run of other settings; anything wrong in the config.
    """
    if not isinstance(config, dict):
        raise UserError("cad_exp.run takes a config, not overrides: cad_exp.run(cad_exp.compose([...]), FOLDER)")
    config, place = resolve(config), Path(folder)
    run_folder.check(place)
    run_folder.check_settings(place, config)
    return execute(config, preflight.check(config), place)


def execute(config: Config, graph: Graph, place: Path) -> dict[str, Any]:
    """Make all that the graph of a resolved config asks for; as `run`, for a graph that was checked."""
    task: Any = import_module(program(config))
    together = distributed.together(config["runtime"]["device"])
    with together, run_folder.attempt(place) as folder, track(config, place, run_identity) as tracker:
        console.quiet_libraries()
        console.stage(f"model: {config['model']['name']}")
        runtime = Runtime(config["runtime"], place / ".cache")
        results = begin(runtime, config, folder, task.facts(config))
        task.perform(runtime, graph, config, results, folder)
        task.show(runtime, graph, config, results, folder, tracker)
        runtime.close()
    report.table(results, place)
    return results.as_dict()


def begin(runtime: Runtime, config: Config, folder: Path, own: dict[str, Any]) -> Results:
    """Return an empty results.json that says what runs; `finish` gives the attempt's files their places."""
    named = {"task": config["task"]["name"], "model": config["model"]["name"]}
    facts = run_info(config, config["seed"], runtime.device, **named, **own)
    weights = model_content(config["model"])
    facts |= {"identity": run_identity(config), "weights": weights["weights"], "config": config}
    facts |= {"overlay": weights["overlay"]}
    facts |= {"precision": runtime.precision, "threads": runtime.threads, "processes": distributed.size()}
    return Results(folder if distributed.main() else None, facts, partial(run_folder.publish, folder))
