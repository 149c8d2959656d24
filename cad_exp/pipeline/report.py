"""What a run leaves for people while it works: files with names in its folder, and lines on the terminal.

With several processes only the first writes. What shows the complete results comes after it: `show`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cad_exp.attribution.attribute import FILE, TABLE, Attribution
from cad_exp.evaluation.judges import JUDGES
from cad_exp.evaluation.records import Records
from cad_exp.interventions.edit import Edit
from cad_exp.pipeline.runtime import Runtime
from cad_exp.pipeline.stages.fidelity import PAIRS
from cad_exp.pipeline.tasks.attribute import Attribute
from cad_exp.reporting import summary
from cad_exp.reporting.results import Results
from cad_exp.reporting.wording import units
from cad_exp.utils import console, distributed
from cad_exp.utils.console import harmless
from cad_exp.utils.io import atomic, link


def budget(edit: Edit, attribution: Attribution, granularity: str) -> None:
    """Show how much of what the edit asked for was there to take."""
    made, name, of = edit.meta, edit.meta["edit"], len(attribution.scores[granularity])
    if "strength" in made:  # gates: nobody asked for a number
        some = f"{made['achieved']:,} of {of:,} {units(granularity)}"
        console.stage(f"edit: {name}, strength {made['strength']:g}, changes {some}")
        return
    console.stage(
        f"edit: {name}, {made['achieved']:,} of {made['requested']:,} {units(granularity)} "
        f"asked for ({made['achieved'] / of:.1%} of all)"
    )


def control(edit: Edit, random: Edit) -> None:
    """Show both numbers of weights, where the random edit's budget is equal in components only."""
    changed, drawn = edit.meta["changed"], random.meta["changed"]
    if changed != drawn:
        what = f"the random edit has as many components, but {drawn:,} weights where the edit has {changed:,}"
        console.say(f"  {what}", style="yellow")


def edits(made: dict[str, Edit], folder: Path) -> None:
    """Write the edits as files."""
    if not distributed.main():
        return
    for variant, edit in made.items():
        edit.save(folder / ("edit.safetensors" if variant == "edited" else f"edit_{variant}.safetensors"))


def chosen(edits: dict[str, Edit], scored: Attribution, granularity: str) -> None:
    """Show how much the edit takes, and how the random one compares."""
    if edits:
        if walked := edits["edited"].meta.get("chosen_by"):
            console.say(f"  strength {walked['tried'][walked['chosen']]['strength']:g}: {walked['why']}")
        if place := edits["edited"].meta.get("instead"):
            console.say(f"  in the concept's place: {place}")
        budget(edits["edited"], scored, granularity)
        control(edits["edited"], edits["random"])


def replacement(edit: Edit) -> None:
    """Show how much a method that replaces weights has changed."""
    console.say(f"  {edit.meta['changed']:,} weights of {edit.meta['matrices']:,} tensors replaced")


def attribution(runtime: Runtime, graph: Attribute, folder: Path) -> None:
    """Write the noisy latents and scores as files."""
    if not distributed.main():
        return
    assert graph.latents is not None and graph.scores is not None
    runtime.get(graph.latents).save(folder / "noisy_latents.safetensors")
    place = runtime.place(graph.scores.scores)
    for name in (FILE, TABLE):
        link(place / name, folder / name)


def fidelity(metrics: list[dict[str, Any]], records: Path, results: Results, folder: Path) -> None:
    """Write the metrics of the scores' fidelity, and the ablations behind them."""
    if not distributed.main():
        return
    for metric in metrics:
        results.add(metric)
    link(records, folder / "fidelity.parquet")
    if (records.parent / PAIRS).exists():
        link(records.parent / PAIRS, folder / PAIRS)


def timesteps(table: Path, folder: Path) -> None:
    """Write the scores per bin of timesteps as a file."""
    if distributed.main():
        link(table, folder / "timesteps.parquet")


def no_judge() -> None:
    """Show that nobody judges the images, and how to choose who does."""
    console.say(
        "  no judge is configured for this model, so its images are not measured: "
        f"choose one, judge={', '.join(JUDGES)}, where real applies the published ones",
        style="yellow",
    )


def records(found: Records, folder: Path) -> None:
    """Write one row per image and variant."""
    with atomic(folder / "records.parquet") as draft:
        found.table.to_parquet(draft)


def table(results: Results, folder: Path) -> None:
    """Show the table on the terminal, and where everything lies."""
    if distributed.main():
        with harmless("the table"):
            summary.show_run(results.as_dict(), folder)
