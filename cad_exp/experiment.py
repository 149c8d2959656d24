"""One run, from the model to its table of results: the whole story on one screen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from . import evaluation, figures, images, terminal
from .attribution import Attribution, attribute
from .components import make_granularity
from .edit import Edit, make_edit, random_edit
from .judges import MiniJudge, load_judge
from .model import DiffusionModel
from .objectives import make_objective
from .probes import Probes, load_folder, sample_noised, sample_trajectory
from .results import Results, run_info
from .tracking import Tracker, track

Config = dict[str, Any]


def run(config: Config, folder: str | Path) -> dict[str, Any]:
    """Attributes a concept, edits the model, evaluates the edit; every stage writes its files into `folder`.

    `config` is the composed config as plain dicts (see conf/). Returns the content of results.json.
    """
    config, folder = settle(config), Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with track(config, folder) as tracker:
        terminal.quiet_libraries()
        terminal.stage(f"model: {config['model']['name']}")
        model, judge = load_model(config), load_judge(config["model"].get("judge"))
        named = {group: config[group]["name"] for group in ("concept", "granularity", "objective", "estimator", "edit")}
        facts = run_info(
            config, config["seed"], model.device, model=config["model"]["name"], weights=model.fingerprint(), **named
        )
        results = Results(folder, facts)
        with results.time("probes"):
            probes = sample_probes(model, config)
            probes.save(folder / "probes.safetensors")
        with results.time("attribution"):
            attribution = score(model, probes, config)
            attribution.save(folder)
        edits = choose_edits(attribution, config)
        for variant, edit in edits.items():
            edit.save(folder / ("edit.safetensors" if variant == "edited" else f"edit_{variant}.safetensors"))
        report_attribution(attribution, config, folder, tracker)
        with results.time("images"):
            shots, pictures = make_images(model, edits, config)
            images.save(folder / "images", shots, pictures)
        with results.time("metrics"):
            measure(judge, shots, pictures, config, results, folder)
        report(results, shots, pictures, config, folder, tracker)
    return results.as_dict()


def settle(config: Config) -> Config:
    """The config with what is left open filled in, checked before any work is done. Raises UserError."""
    config = {group: dict(value) if isinstance(value, dict) else value for group, value in config.items()}
    concept, granularity, edit = config["concept"], config["granularity"]["name"], config["edit"]
    if config["objective"]["name"] == "auto":
        config["objective"]["name"] = "amplify" if edit["name"] == "amplify" else concept["objective"][granularity]
    if edit["ratio"] is None and edit["count"] is None:
        edit["ratio"] = concept["amplify_ratio"] if edit["name"] == "amplify" else concept["ratio"][granularity]
    if edit["factor"] is None:
        edit["factor"] = concept["factor"][granularity] if edit["sign"] != "negative" else 0.0
    config["evaluation"]["higher_concept_is_better"] = edit["sign"] == "negative"
    evaluation.check(config["evaluation"], concept)
    return config


def load_model(config: Config) -> DiffusionModel:
    """The model of the config, with the edits that it is to start from (`model.edits`) already made."""
    settings, runtime = config["model"], config["runtime"]
    if runtime.get("threads"):
        import torch

        torch.set_num_threads(runtime["threads"])
    model = DiffusionModel.load(
        settings["path"],
        settings["revision"],
        runtime["device"],
        runtime["precision"],
        settings["steps"],
        settings["guidance"],
        settings["name"],
        settings["resolution"],
    )
    for path in settings.get("edits") or []:
        Edit.load(path).apply(model)
    return model


def sample_probes(model: DiffusionModel, config: Config) -> Probes:
    """Trajectories of the concept's prompt, or noised images of it, as the objective needs."""
    from .objectives import OBJECTIVES

    concept, settings, batch = config["concept"], config["probes"], config["runtime"]["batch_size"]
    first = 1_000_000 * settings["seed"]
    seeds = range(first, first + settings["samples"])
    terminal.stage(f'probes: {settings["samples"]} x {settings["steps"]} of "{concept["prompt"]}"')
    with terminal.progress(settings["samples"], "probes") as tick:
        if OBJECTIVES[config["objective"]["name"]].probes_kind == "trajectory":
            return sample_trajectory(
                model,
                concept["prompt"],
                concept["base_prompt"],
                seeds,
                settings["steps"],
                settings["guidance"],
                batch,
                tick,
            )
        real = load_folder(settings["images"], model.resolution) if settings["images"] else None
        return sample_noised(
            model,
            concept["prompt"],
            concept["base_prompt"],
            real,
            settings["samples"] * settings["steps"],
            first,
            batch_size=batch,
            progress=tick,
        )


def score(model: DiffusionModel, probes: Probes, config: Config) -> Attribution:
    """Every component's signed score, at all granularities at once; `granularity.kinds` narrows the chosen one."""
    chosen, batch = config["granularity"], config["runtime"]["batch_size"]
    cuts = [
        make_granularity(name, chosen["kinds"] if name == chosen["name"] else None)
        for name in ("weight", "neuron", "head", "layer")
    ]
    terminal.stage(f"attribution: {config['objective']['name']}, {config['estimator']['name']}")
    with terminal.progress(len(probes), "attribution") as tick:
        objective = make_objective(config["objective"]["name"], model, probes, batch, tick)
        attribution = attribute(
            model,
            probes,
            objective,
            config["estimator"]["name"],
            cuts,
            meta={"concept": config["concept"]["name"], "seed": config["seed"]},
        )
    counts = ", ".join(f"{len(s):,} {figures.UNITS[name]}" for name, s in attribution.scores.items())
    terminal.say(f"  {counts}; J = {attribution.meta['intact']:.4g}")
    return attribution


def choose_edits(attribution: Attribution, config: Config) -> dict[str, Edit]:
    """The edit of the config and a random one of equal budget; nothing for `edit=none`."""
    settings, granularity = config["edit"], config["granularity"]["name"]
    if settings["name"] == "none":
        return {}
    edit = make_edit(
        settings["name"],
        attribution,
        granularity,
        settings["ratio"],
        settings["count"],
        settings["scope"],
        settings["factor"],
        seed=config["seed"],
    )
    made = edit.meta
    terminal.stage(
        f"edit: {settings['name']}, {made['achieved']:,} of {made['requested']:,} {figures.UNITS[granularity]} "
        f"asked for ({made['achieved'] / len(attribution.scores[granularity]):.1%} of all)"
    )
    return {"edited": edit, "random": random_edit(edit, attribution, granularity, config["seed"] + 1)}


def make_images(
    model: DiffusionModel, edits: dict[str, Edit], config: Config
) -> tuple[list[evaluation.Shot], dict[str, np.ndarray]]:
    """Images of the unedited, the edited and the randomly edited model, with equal prompts and seeds."""
    settings = config["evaluation"]
    if not settings["metrics"]:
        return [], {}
    purposes = {"concept"} | ({"retention"} if {"retention", "quality"} & set(settings["metrics"]) else set())
    shots = [
        shot
        for shot in evaluation.plan(
            config["concept"], settings["samples"], settings["retention_samples"], config["seed"]
        )
        if shot.purpose in purposes
    ]
    terminal.stage(f"images: {len(shots)} for each of {', '.join(['unedited', *edits])}")
    pictures = {}
    for variant, edit in {"unedited": Edit({}), **edits}.items():
        with edit.apply(model), terminal.progress(len(shots), f"images, {variant}") as tick:
            pictures[variant] = model.generate(
                [s.prompt for s in shots], [s.seed for s in shots], batch_size=settings["batch_size"], progress=tick
            )
    return shots, pictures


def measure(
    judge: MiniJudge | None,
    shots: list[evaluation.Shot],
    pictures: dict[str, np.ndarray],
    config: Config,
    results: Results,
    folder: Path,
) -> None:
    """Judges every image into records.parquet, and writes metric by metric into results.json."""
    if not pictures:
        return
    if judge is None:
        terminal.say(
            "  no judge is configured for this model, so its images are not measured: "
            "model.judge=mini applies the embedded one, which knows the mini world only",
            style="yellow",
        )
        return
    terminal.stage("metrics: " + ", ".join(config["evaluation"]["metrics"]))
    records = evaluation.judge_images(judge, shots, pictures)
    images.save_table(folder / "records.parquet", records.table)
    for name in config["evaluation"]["metrics"]:
        for metric in evaluation.EVALUATIONS[name](
            records, judge, shots, {**config["evaluation"], "seed": config["seed"]}
        ):
            results.add(metric)


def report_attribution(attribution: Attribution, config: Config, folder: Path, tracker: Tracker) -> None:
    """The attribution map as a picture, its tables and files to the tracker."""
    granularity, concept = config["granularity"]["name"], config["concept"]["name"]
    picture = figures.attribution_map(
        attribution,
        granularity,
        folder / "attribution.png",
        f"Where {concept} sits in {config['model']['name']}: {figures.UNITS[granularity]}",
    )
    tracker.log_attribution(attribution, picture)
    tracker.log_artifact(folder / "attribution.safetensors", "attribution", f"attribution-{concept}")
    if (folder / "edit.safetensors").exists():
        tracker.log_artifact(folder / "edit.safetensors", "edit", f"edit-{concept}-{granularity}")


def report(
    results: Results,
    shots: list[evaluation.Shot],
    pictures: dict[str, np.ndarray],
    config: Config,
    folder: Path,
    tracker: Tracker,
) -> None:
    """The before/after sheet, the metrics to the tracker, and the table on the terminal."""
    places: dict[str, Path | str] = {
        "run folder": folder,
        "results": results.path,
        "attribution map": folder / "attribution.png",
    }
    if pictures:
        sheet = figures.before_after(
            images.by_prompt(shots, pictures),
            folder / "before_after.png",
            f"{config['concept']['name']}: before and after",
        )
        places["before and after"] = sheet
        tracker.log_images({"before_after": sheet})
    if (folder / "edit.safetensors").exists():
        places["edit"] = folder / "edit.safetensors"
    tracker.log_metrics(results.metrics)
    terminal.show_metrics(
        results.metrics, f"{config['concept']['name']} · {config['granularity']['name']} · {config['edit']['name']}"
    )
    terminal.show_places(places)
