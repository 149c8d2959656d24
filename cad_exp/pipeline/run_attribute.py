"""The work of task=attribute, in order, and what is written down of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cad_exp.attribution.attribute import Attribution
from cad_exp.attribution.by_timestep import bins_of
from cad_exp.attribution.objectives.build import check as check_objective
from cad_exp.config.resolve import Config
from cad_exp.data import vocabulary
from cad_exp.data.noisy_latents import NoisyLatents
from cad_exp.data.prompts.sources import files as prompt_files
from cad_exp.evaluation import erasure, redaction, verdict
from cad_exp.evaluation.fidelity.metrics import check as check_fidelity
from cad_exp.interventions.edit import Edit
from cad_exp.interventions.methods import needs_scores
from cad_exp.pipeline import report
from cad_exp.pipeline.records import records
from cad_exp.pipeline.runtime import Runtime
from cad_exp.pipeline.show import Show
from cad_exp.pipeline.stage import graph as nodes_of
from cad_exp.pipeline.stages.images import Images
from cad_exp.pipeline.stages.noisy_latents import PromptLatents
from cad_exp.pipeline.tasks.attribute import Attribute
from cad_exp.reporting.results import Results
from cad_exp.reporting.tracking.tracker import Tracker
from cad_exp.utils import console, distributed
from cad_exp.utils.errors import UserError
from cad_exp.utils.hashing import file_digest

GROUPS = ("concept", "granularity", "objective", "estimator", "edit")  # whose names results.json gives


def facts(config: Config) -> dict[str, Any]:
    """Return what results.json says of the run, beside what it says of every run."""
    named = {group: config[group]["name"] for group in GROUPS} | {"explicit": redaction.mode(config)}
    return named | {"prompt_files": {file.name: file_digest(file) for file in prompt_files(config)}}


def perform(runtime: Runtime, graph: Attribute, config: Config, results: Results, folder: Path) -> None:
    """Make all that the graph asks for; explicit images are redacted, whatever happens."""
    vocabulary.warn(config, graph.requests)
    try:
        work(runtime, graph, config, results, folder)
    finally:
        redact(runtime, graph, config)
    results.run["verdict"] = verdict.of(results.metrics)


def show(runtime: Runtime, graph: Attribute, config: Config, results: Results, folder: Path, tracker: Tracker) -> None:
    """Complete the results, then draw them and mirror them to the tracker."""
    Show(runtime, graph, config, results, folder).finish(tracker)


def work(runtime: Runtime, graph: Attribute, config: Config, results: Results, folder: Path) -> None:
    """Make everything that the graph asks for, in order; write files into the folder and metrics into the results."""
    if graph.judge is not None:
        runtime.get(graph.judge)  # before any work: says which of its parts are missing
    if graph.erased is not None:
        with results.time("erasing"):
            erase_first(runtime, graph.erased, config["model"]["erased"], results, folder)
    edits = make_edits(runtime, graph, config, results, folder)
    for variant, key in (("edited", "changed_weights"), ("random", "changed_weights_random")):
        results.run[key] = edits[variant].meta["changed"] if edits else 0
    with results.time("images"):
        if graph.pictures:
            console.stage(f"images: {len(graph.requests)} for each of {', '.join(graph.pictures)}")
        for node in graph.pictures.values():
            runtime.get(node)
    with results.time("counterfactuals"):
        counterfactuals(runtime, graph)
    with results.time("metrics"):
        measure(runtime, graph, config, results, folder)


def erase_first(runtime: Runtime, graph: Attribute, config: Config, results: Results, folder: Path) -> None:
    """Make the edit with which the model starts; it is left as erased.safetensors."""
    console.stage(f"first the model is erased: edit={config['edit']['name']}")
    edit = erasing_edit(runtime, graph, config)
    results.run["erased"] = {"edit": config["edit"], "changed_weights": edit.meta["changed"]}
    if distributed.main():
        edit.save(folder / "erased.safetensors")


def erasing_edit(runtime: Runtime, graph: Attribute, config: Config) -> Edit:
    """Return the edit of the graph that erases the model first."""
    if graph.scores is not None:
        check_objective(config["objective"], config["concept"], graph.judge and runtime.get(graph.judge))
        announce_latents(runtime, graph, config)
        console.stage(f"attribution: {config['objective']['name']}, {config['estimator']['name']}")
        edit = runtime.get(graph.edits["edited"])
        report.budget(edit, runtime.get(graph.scores), config["granularity"]["name"])
        return edit
    console.stage(f"edit: {config['edit']['name']}")
    return runtime.get(graph.edits["edited"])


def make_edits(runtime: Runtime, graph: Attribute, config: Config, results: Results, folder: Path) -> dict[str, Edit]:
    """Make the edits of a run, variant -> edit, and the studies of the scores behind them."""
    if not needs_scores(config["edit"]):
        with results.time("edit"):
            console.stage(f"edit: {config['edit']['name']}")
            edits = {variant: runtime.get(node) for variant, node in graph.edits.items()}
            report.replacement(edits["edited"])
        report.edits(edits, folder)
        return edits
    return attributed(runtime, graph, config, results, folder)


def attributed(runtime: Runtime, graph: Attribute, config: Config, results: Results, folder: Path) -> dict[str, Edit]:
    """Score the components, choose the edits by the scores, and study the scores."""
    assert graph.latents is not None and graph.scores is not None
    with results.time("noisy_latents"):
        check_questions(runtime, graph, config)
        latents = announce_latents(runtime, graph, config)
    with results.time("attribution"):
        if graph.timesteps is not None:
            bins_of(latents.t, graph.timesteps.bins)  # refuses what does not fit, before the work
        console.stage(f"attribution: {config['objective']['name']}, {config['estimator']['name']}")
        scored = runtime.get(graph.scores)
    with results.time("edit"):
        check_scores(scored, config)
        edits = {variant: runtime.get(node) for variant, node in graph.edits.items()}
        report.chosen(edits, scored, config["granularity"]["name"])
        if edits and "chosen_by" in edits["edited"].meta:
            results.run["strength"] = edits["edited"].meta["chosen_by"]
        if edits and edits["edited"].meta.get("instead"):
            results.run["instead"] = edits["edited"].meta["instead"]
    report.attribution(runtime, graph, folder)
    report.edits(edits, folder)
    with results.time("fidelity"):
        if graph.fidelity is not None:
            report.fidelity(*study(runtime, graph, config), results, folder)
    with results.time("timesteps"):
        if graph.timesteps is not None:
            console.stage(f"timesteps: {config['estimator']['name']} in {graph.timesteps.bins} parts of the denoising")
            report.timesteps(runtime.get(graph.timesteps), folder)
    return edits


def check_questions(runtime: Runtime, graph: Attribute, config: Config) -> None:
    """Raise UserError where the objective, or the fidelity study, cannot do with this concept and judge."""
    judge = None if graph.judge is None else runtime.get(graph.judge)
    check_objective(config["objective"], config["concept"], judge)
    check_fidelity(config["evaluation"]["fidelity"], config["concept"], judge)


def announce_latents(runtime: Runtime, graph: Attribute, config: Config) -> NoisyLatents:
    """Return the noisy latents of the concept; those of what is to be retained are made as well."""
    assert graph.latents is not None and graph.scores is not None
    for node in (graph.latents, *graph.scores.scores.question.retained):
        announce(node, config)
        runtime.get(node)
    return runtime.get(graph.latents)


def announce(node: PromptLatents, config: Config) -> None:
    """Say which noisy latents come next."""
    walked = config["noisy_latents"]
    console.stage(f'noisy latents: {walked["samples"]} x {walked["steps"]} of "{node.prompt}"')


def study(runtime: Runtime, graph: Attribute, config: Config) -> tuple[list[dict[str, Any]], Path]:
    """Ask how far the scores can be trusted."""
    assert graph.fidelity is not None
    if graph.fidelity.held_out is not None:
        announce(graph.fidelity.held_out, config)
        runtime.get(graph.fidelity.held_out)
    settings = graph.fidelity.settings
    console.stage(f"fidelity: {settings['number']} ablations at each of {', '.join(map(str, settings['rates']))}")
    return runtime.get(graph.fidelity)


def check_scores(scored: Attribution, config: Config) -> None:
    """Raise UserError where every score is 0: then nothing was found, and an edit would be one of nothing."""
    if not scored.scores[config["granularity"]["name"]].any():
        concept, name = config["concept"], config["granularity"]["name"]
        raise UserError(
            f"every score of granularity {name} is 0: to objective={config['objective']['name']} nothing in the model "
            f"tells concept.prompt={concept['prompt'][:60]!r} from concept.base_prompt={concept['base_prompt'][:60]!r}"
        )


def measure(runtime: Runtime, graph: Attribute, config: Config, results: Results, folder: Path) -> None:
    """Judge every image into records.parquet, and write metric by metric into results.json."""
    if not graph.pictures:
        return
    if graph.judge is None:
        report.no_judge()
        return
    console.stage("metrics: " + ", ".join(config["evaluation"]["metrics"]))
    found = records(runtime, graph, config)
    if not distributed.main():
        return
    report.records(found, folder)
    for metric in erasure.evaluate(found, config["evaluation"]):
        results.add(metric)


def counterfactuals(runtime: Runtime, graph: Attribute) -> None:
    """Make the images with one component switched off, where there are such components."""
    if off := graph.switched_off(runtime):
        console.stage(f"images with one of {len(off)} components switched off")
        for pictures, _ in off:
            runtime.get(pictures)


def redact(runtime: Runtime, graph: Attribute, config: Config) -> None:
    """Blur or drop the explicit images that were made and, where they had to be, judged."""
    if not distributed.main():
        return
    mode = redaction.mode(config)
    explicit = [node for node in nodes_of(*graph.nodes()) if isinstance(node, Images) and node.redacted != "kept"]
    made = [node for node in explicit if runtime.holds(node)]  # also those that only a judge has looked at
    if not made:
        return
    for node in made:
        runtime.redact(node, redaction.redact(mode))
    console.say(f"  explicit images: {mode} (evaluation.explicit=kept keeps them)")
