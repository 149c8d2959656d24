"""One run, from the model to its table of results: the whole story on one screen."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from cad_exp.attribution.attribute import Attribution
from cad_exp.config.resolve import REPLACING, Config, resolve
from cad_exp.config.runs import alone
from cad_exp.data import prompts, vocabulary
from cad_exp.data.prompts.sources import files as prompt_files
from cad_exp.data.requests import Shot
from cad_exp.evaluation import erasure, verdict
from cad_exp.interventions.edit import Edit
from cad_exp.interventions.selection import make_edit, random_edit
from cad_exp.pipeline import preflight, report, studies
from cad_exp.pipeline.identity import run_identity
from cad_exp.pipeline.stages import Stages
from cad_exp.reporting import run_folder
from cad_exp.reporting.results import Results, run_info
from cad_exp.reporting.tracking import track
from cad_exp.utils import console, distributed
from cad_exp.utils.errors import UserError
from cad_exp.utils.hashing import file_digest


def run(config: Config, folder: str | Path) -> dict[str, Any]:
    """Attributes a concept, edits the model, evaluates the edit; returns the content of `folder`/results.json.

    `config` is the composed config as plain dicts (see conf/). What an earlier run of the same settings has already
    made comes out of the stage cache (`runtime.cache`), so a run that was killed continues where it was. Results that
    lie in `folder` already stay until the new ones are complete. UserError for a folder that holds other files, or a
    finished run of other settings.
    """
    config, place = resolve(config), Path(folder)
    run_folder.check(place)
    run_folder.check_settings(place, config)
    preflight.check(config)
    together = distributed.together(config["runtime"]["device"])
    with together, run_folder.attempt(place) as folder, track(config, place, run_identity) as tracker:
        console.quiet_libraries()
        shots = prompts.plan(config)  # first, for it refuses sets that do not fit
        vocabulary.warn(config, shots)
        console.stage(f"model: {config['model']['name']}")
        stages = Stages(config, config["runtime"]["cache"] or place / ".cache")
        results = begin(stages, config, folder)
        if config["model"]["erased"]:
            with results.time("erasing"):
                erase_first(stages, results, folder)
        if config["edit"]["name"] in REPLACING:
            with results.time("edit"):
                edits = stages.rival()
            report.edits(edits, folder)
        else:
            edits = attributed(stages, results, folder)
        results.run["changed_weights"] = edits["edited"].meta["changed"] if edits else 0
        results.run["changed_weights_random"] = edits["random"].meta["changed"] if edits else 0
        with results.time("images"):
            pictures = stages.images(shots, {"unedited": Edit({}), **edits}) if shots else {}
        try:
            with results.time("metrics"):
                measure(stages, shots, pictures, results, folder)
        finally:
            stages.cover(shots, pictures)
        results.run["verdict"] = verdict.of(results.metrics)
        report.Show(stages, shots, pictures, results, folder).finish(tracker)
        stages.cache.close()
    report.table(results, place)
    return results.as_dict()


def begin(stages: Stages, config: Config, folder: Path) -> Results:
    """An empty results.json that says what runs; `finish` gives the files of `folder`, the attempt's, their places."""
    named = {group: config[group]["name"] for group in ("concept", "granularity", "objective", "estimator", "edit")}
    facts = run_info(config, config["seed"], stages.device, model=config["model"]["name"], **named)
    facts |= {"identity": run_identity(config), "weights": stages.weights["weights"], "config": config}
    facts |= {"overlay": stages.weights["overlay"]}
    facts |= {"prompt_files": {file.name: file_digest(file) for file in prompt_files(config)}}
    facts |= {"precision": stages.precision, "threads": stages.base["threads"], "processes": distributed.size()}
    return Results(folder if distributed.main() else None, facts, partial(run_folder.publish, folder))


def erase_first(stages: Stages, results: Results, folder: Path) -> None:
    """Erase the model as `model.erased` asks: what follows takes the erased model as its unedited one.

    The erasing run's stages go through the same cache; its edit is left as erased.safetensors.
    """
    first = Stages(alone(stages.config), stages.cache.folder)
    config = first.config
    console.stage(f"first the model is erased: edit={config['edit']['name']}")
    if config["edit"]["name"] in REPLACING:
        edit = first.rival()["edited"]
    else:
        granularity = config["granularity"]
        scored = first.attribution(first.probes()).narrow(granularity["name"], granularity["kinds"])
        edit = chosen_edit(scored, config)
    stages.start_from(edit)
    results.run["erased"] = {"edit": config["edit"], "changed_weights": edit.meta["changed"]}
    if distributed.main():
        edit.save(folder / "erased.safetensors")


def attributed(stages: Stages, results: Results, folder: Path) -> dict[str, Edit]:
    """The edits that the scores of a concept's components choose, and the studies of these scores."""
    config = stages.config
    with results.time("probes"):
        probes = stages.probes()
    with results.time("attribution"):
        attribution = stages.attribution(probes)
    with results.time("edit"):
        chosen = attribution.narrow(config["granularity"]["name"], config["granularity"]["kinds"])
        check_scores(chosen, config)
        edits = choose_edits(chosen, config)
    report.attribution(stages, probes, folder)
    report.edits(edits, folder)
    with results.time("fidelity"):
        report.fidelity(*studies.fidelity(stages, probes, chosen), results, folder)
    with results.time("timesteps"):
        report.timesteps(studies.timesteps(stages, probes, chosen), folder)
    return edits


def check_scores(attribution: Attribution, config: Config) -> None:
    """UserError where every score is 0: then nothing was found, and an edit would be one of nothing."""
    if not attribution.scores[config["granularity"]["name"]].any():
        concept, name = config["concept"], config["granularity"]["name"]
        raise UserError(
            f"every score of granularity {name} is 0: to objective={config['objective']['name']} nothing in the model "
            f"tells concept.prompt={concept['prompt'][:60]!r} from concept.base_prompt={concept['base_prompt'][:60]!r}"
        )


def choose_edits(attribution: Attribution, config: Config) -> dict[str, Edit]:
    """The edit of the config and a random one of equal budget; nothing for `edit=none`."""
    if config["edit"]["name"] == "none":
        return {}
    edit, granularity = chosen_edit(attribution, config), config["granularity"]["name"]
    random = random_edit(edit, attribution, granularity, config["seed"] + 1)
    report.control(edit, random)
    return {"edited": edit, "random": random}


def chosen_edit(attribution: Attribution, config: Config) -> Edit:
    """The edit of the config, of components that these scores choose; its budget is said."""
    settings, granularity = config["edit"], config["granularity"]["name"]
    edit = make_edit(
        settings["name"],
        attribution,
        granularity,
        settings["ratio"],
        settings["count"],
        settings["scope"],
        settings["factor"],
        seed=config["seed"],
        rounding=settings["rounding"],
    )
    report.budget(edit, attribution, granularity)
    if edit.empty:
        sign = edit.meta["sign"] or "positive"
        raise UserError(f"no component has a {sign} score, so edit={settings['name']} has nothing to change: edit=none")
    return edit


def measure(stages: Stages, shots: list[Shot], pictures: dict[str, list[Path]], results: Results, folder: Path) -> None:
    """Judges every image into records.parquet, and writes metric by metric into results.json."""
    config = stages.config
    if not pictures:
        return
    if stages.judge is None:
        report.no_judge()
        return
    console.stage("metrics: " + ", ".join(config["evaluation"]["metrics"]))
    records = stages.judgements(shots, pictures)
    if not distributed.main():
        return
    report.records(records, folder)
    for metric in erasure.evaluate(records, config["evaluation"]):
        results.add(metric)
