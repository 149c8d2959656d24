"""What a run leaves for people: files with names in its folder, pictures, the tracker's mirror, the table at the end.

With several processes only the first writes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from . import fidelity_figures, figures, parallel, sheet, terminal, timestep_figure, verdict
from . import images as pngs
from .attribution import FILE, TABLE, Attribution
from .edit import Edit
from .explicit import is_explicit
from .files import atomic, link
from .image_game import MEASURES
from .probes import Probes
from .records import Records
from .results import Results
from .settings import Config
from .shots import Shot
from .stages import Stages
from .tracking import Tracker


def budget(edit: Edit, attribution: Attribution, granularity: str) -> None:
    """How much of what the edit asked for was there to take."""
    made, name = edit.meta, edit.meta["edit"]
    terminal.stage(
        f"edit: {name}, {made['achieved']:,} of {made['requested']:,} {figures.UNITS[granularity]} "
        f"asked for ({made['achieved'] / len(attribution.scores[granularity]):.1%} of all)"
    )


def control(edit: Edit, random: Edit) -> None:
    """Where the random edit's budget is equal in components only, both numbers of weights."""
    changed, drawn = edit.meta["changed"], random.meta["changed"]
    if changed != drawn:
        what = f"the random edit has as many components, but {drawn:,} weights where the edit has {changed:,}"
        terminal.say(f"  {what}", style="yellow")


def edits(made: dict[str, Edit], config: Config, folder: Path, tracker: Tracker) -> None:
    """The edits as files."""
    if not parallel.main():
        return
    for variant, edit in made.items():
        edit.save(folder / ("edit.safetensors" if variant == "edited" else f"edit_{variant}.safetensors"))
    if made:
        name = f"edit-{config['concept']['name']}-{config['granularity']['name']}"
        tracker.log_artifact(folder / "edit.safetensors", "edit", name)


def attribution(stages: Stages, probes: Probes, folder: Path, tracker: Tracker) -> None:
    """The probes and scores as files."""
    if not parallel.main():
        return
    probes.save(folder / "probes.safetensors")
    for name in (FILE, TABLE):
        link(stages.scores / name, folder / name)
    tracker.log_artifact(folder / FILE, "attribution", f"attribution-{stages.config['concept']['name']}")


def attribution_map(scored: Attribution, results: Results, config: Config, folder: Path, tracker: Tracker) -> None:
    """The picture of the chosen granularity, with what the studies of the scores found; after these."""
    if not parallel.main():
        return
    granularity, kinds = config["granularity"]["name"], config["granularity"]["kinds"]
    picture = figures.attribution_map(
        scored.narrow(granularity, kinds),
        granularity,
        folder / "attribution.png",
        f"Where {config['concept']['name']} sits in {config['model']['name']}: {figures.UNITS[granularity]}",
        verdict.scores(results.metrics),
        verdict.stable(results.metrics),
    )
    tracker.log_attribution(scored, picture)


def fidelity(
    metrics: list[dict[str, Any]],
    records: Path | None,
    results: Results,
    config: Config,
    folder: Path,
    tracker: Tracker,
) -> None:
    """The metrics of the scores' fidelity, the ablations behind them, and their pictures."""
    if records is None or not parallel.main():
        return
    for metric in metrics:
        results.add(metric)
    link(records, folder / "fidelity.parquet")
    table, settings = pd.read_parquet(records), config["evaluation"]["fidelity"]
    what = f"{config['concept']['name']}, {config['granularity']['name']}, {config['estimator']['name']}"
    sentence, place = verdict.scores(results.metrics), folder / "fidelity.png"
    pictures = {"fidelity": fidelity_figures.scatter(table, place, f"Fidelity: {what}", verdict=sentence)}
    intact = {metric["definition"].get("measure", "J"): metric["definition"]["intact"] for metric in reversed(metrics)}
    shown = [("J", intact["J"], f"J ({config['objective']['name']})")] if settings["fractions"] else []
    if settings["images"] and settings["images"]["fractions"]:
        shown.append(("rate", intact["rate"], MEASURES["rate"]))
    if shown:
        pictures["fidelity_curves"] = fidelity_figures.curves(table, folder / "fidelity_curves.png", what, shown)
    if settings["images"] and settings["images"]["number"]:
        title = f"Do the scores tell what images show? {what}"
        place = folder / "fidelity_images.png"
        pictures["fidelity_images"] = fidelity_figures.scatter(table, place, title, "log_odds")
    tracker.log_images(pictures)


def timesteps(table: Path | None, config: Config, folder: Path, tracker: Tracker) -> None:
    """The scores per bin of timesteps as a file, and their picture."""
    if table is None or not parallel.main():
        return
    link(table, folder / "timesteps.parquet")
    title = f"When and where {config['concept']['name']} is made: {figures.UNITS[config['granularity']['name']]}"
    picture = timestep_figure.timestep_map(pd.read_parquet(table), folder / "timesteps.png", title)
    tracker.log_images({"timesteps": picture})


def images(stages: Stages, shots: list[Shot], pictures: dict[str, list[Path]], folder: Path) -> None:
    """`folder`/images/variant/purpose/prompt-seed.png for every image but explicit ones that are not kept."""
    if not parallel.main():
        return
    for variant, files in pictures.items():
        for shot, file in zip(shots, files, strict=True):
            if stages.explicit == "dropped" and is_explicit(shot, stages.config["concept"]):
                continue
            link(file, folder / "images" / variant / sheet.file_name(shot))


def no_judge() -> None:
    terminal.say(
        "  no judge is configured for this model, so its images are not measured: "
        "judge=real applies the published ones, judge=mini the embedded one, which knows the mini world only",
        style="yellow",
    )


def records(found: Records, folder: Path) -> None:
    """One row per image and variant."""
    with atomic(folder / "records.parquet") as draft:
        found.table.to_parquet(draft)


def outcome(
    results: Results, shots: list[Shot], pictures: dict[str, list[Path]], config: Config, folder: Path, tracker: Tracker
) -> None:
    """The before/after sheet, and the metrics to the tracker."""
    if not parallel.main():
        return
    if pictures:
        shown = {
            variant: {prompt: pngs.load([files[i] for i in rows]) for prompt, rows in sheet.choice(shots).items()}
            for variant, files in pictures.items()
        }
        title = f"{config['concept']['name']}: before and after"
        tracker.log_images({"before_after": figures.before_after(shown, folder / "before_after.png", title)})
    tracker.log_metrics(results.metrics)


def table(results: Results, folder: Path) -> None:
    """The table on the terminal, and where everything lies."""
    if parallel.main():
        terminal.show_run(results.as_dict(), folder)
