"""What a run leaves for people: files with names in its folder; then, once its results are complete, what shows them.

With several processes only the first writes. Pictures, the tracker's mirror and the table at the end come after
`results.json` is complete, and none of them can cost it: what cannot be made is named on one line, and in `left_out`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from cad_exp.attribution.attribute import FILE, TABLE, Attribution
from cad_exp.config.resolve import Config
from cad_exp.data.requests import ImageRequest
from cad_exp.evaluation import verdict
from cad_exp.evaluation.fidelity.image_game import MEASURES
from cad_exp.evaluation.judges import JUDGES
from cad_exp.evaluation.records import Records
from cad_exp.interventions.edit import Edit
from cad_exp.pipeline.drawing import Drawings, draw
from cad_exp.pipeline.runtime import Runtime
from cad_exp.pipeline.stages.fidelity import PAIRS
from cad_exp.pipeline.tasks.attribute import Attribute
from cad_exp.reporting import contact_sheet, summary
from cad_exp.reporting.results import REPORT, Results
from cad_exp.reporting.summary import units
from cad_exp.reporting.tracking.tracker import Tracker
from cad_exp.utils import console, distributed
from cad_exp.utils import images as pngs
from cad_exp.utils.console import harmless
from cad_exp.utils.io import atomic, link

OFF = "counterfactuals"  # folder of images with one component switched off, and with its ending their table
OF_REQUEST = ("purpose", "prompt", "seed", "kind", "label", "row")


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


@dataclass(frozen=True)
class Show:
    """A run whose results are complete, and what shows it."""

    runtime: Runtime
    graph: Attribute
    config: Config
    results: Results
    folder: Path

    @property
    def pictures(self) -> dict[str, list[Path]]:
        """Image files of each variant, in the order of the requests."""
        return {variant: self.runtime.get(node) for variant, node in self.graph.pictures.items()}

    def drawings(self) -> Drawings:
        """Return what is to be drawn: it follows from the files that the run has left. Only the first process draws."""
        if not distributed.main():
            return {}
        planned: Drawings = {"images": self._images} if self.graph.pictures else {}
        if self.graph.switched_off(self.runtime):
            planned[OFF] = self._counterfactuals
        if (self.folder / FILE).exists():
            planned["attribution.png"] = self._attribution
        if (self.folder / "fidelity.parquet").exists():
            planned |= self._fidelity()
        if (self.folder / PAIRS).exists():
            planned["interactions.png"] = self._interactions
        if (self.folder / "timesteps.parquet").exists():
            planned["timesteps.png"] = self._timesteps
        return planned | ({"before_after.png": self._before_after} if self.graph.pictures else {})

    def finish(self, tracker: Tracker) -> None:
        """Complete the results; then draw, and mirror them to the tracker."""
        drawn = draw(self.drawings(), self.results)
        if distributed.main():
            self._mirror(tracker, [name for name in drawn if name.endswith(".png")])

    def _images(self) -> None:
        images(self.runtime, self.graph, self.folder)

    def _counterfactuals(self) -> None:
        counterfactuals(self.runtime, self.graph, self.folder)

    def _attribution(self) -> None:
        from cad_exp.reporting.figures import attribution as figures

        granularity, concept = self.config["granularity"], self.config["concept"]["name"]
        scored = Attribution.load(self.folder).narrow(granularity["name"], granularity["kinds"])
        title = f"Where {concept} sits in {self.config['model']['name']}: {units(granularity['name'])}"
        told = (verdict.scores(self.results.metrics), verdict.stable(self.results.metrics))
        figures.attribution_map(scored, granularity["name"], self.folder / "attribution.png", title, *told)

    def _fidelity(self) -> Drawings:
        settings = self.config["evaluation"]["fidelity"]
        planned: Drawings = {"fidelity.png": self._scatter}
        if settings["fractions"] or (settings["images"] and settings["images"]["fractions"]):
            planned["fidelity_curves.png"] = self._curves
        if settings["images"] and settings["images"]["number"]:
            planned["fidelity_images.png"] = partial(self._scatter, "fidelity_images.png", "log_odds")
        return planned

    def _scatter(self, name: str = "fidelity.png", measure: str = "J") -> None:
        from cad_exp.reporting.figures import fidelity as fidelity_figures

        asked = "Fidelity:" if measure == "J" else "Do the scores tell what images show?"
        table = pd.read_parquet(self.folder / "fidelity.parquet")
        told = verdict.scores(self.results.metrics) if measure == "J" else ""
        fidelity_figures.scatter(table, self.folder / name, f"{asked} {self._scored()}", measure, told)

    def _curves(self) -> None:
        from cad_exp.reporting.figures import fidelity as fidelity_figures

        settings = self.config["evaluation"]["fidelity"]
        facts = [metric["definition"] for metric in reversed(self.results.metrics) if "intact" in metric["definition"]]
        intact = {each.get("measure", "J"): each["intact"] for each in facts}
        shown = [("J", intact["J"], f"J ({self.config['objective']['name']})")] if settings["fractions"] else []
        if settings["images"] and settings["images"]["fractions"]:
            shown.append(("rate", intact["rate"], MEASURES["rate"]))
        table = pd.read_parquet(self.folder / "fidelity.parquet")
        fidelity_figures.curves(table, self.folder / "fidelity_curves.png", self._scored(), shown)

    def _scored(self) -> str:
        return ", ".join(self.config[group]["name"] for group in ("concept", "granularity", "estimator"))

    def _interactions(self) -> None:
        from cad_exp.attribution.interactions.findings import told
        from cad_exp.reporting.figures import interactions as figures
        from cad_exp.reporting.figures.layers import short_name

        name = self.config["granularity"]["name"]
        rows = Attribution.load(self.folder).narrow(name, self.config["granularity"]["kinds"]).tables[name]
        table = pd.read_parquet(self.folder / PAIRS)
        clusters = pd.concat([table.set_index("one")["one_cluster"], table.set_index("other")["other_cluster"]])
        own = clusters[~clusters.index.duplicated()].sort_index().to_numpy()
        places = zip(rows["module"], rows["block"], rows["kind"], strict=True)
        layers = [f"{short_name(module, block)} · {kind}" for module, block, kind in places]
        names = [f"{layer} · {each.rpartition(' · ')[2]}" for layer, each in zip(layers, rows["name"], strict=True)]
        table["one_name"], table["other_name"] = ([names[i] for i in table[side]] for side in ("one", "other"))
        title = f"How {units(name)} work together for {self.config['concept']['name']}"
        figures.matrix(table, layers, self.folder / "interactions.png", title, told(table, own, names))

    def _timesteps(self) -> None:
        from cad_exp.reporting.figures import timesteps as timestep_figure

        title = f"When and where {self.config['concept']['name']} is made: {units(self.config['granularity']['name'])}"
        table = pd.read_parquet(self.folder / "timesteps.parquet")
        timestep_figure.timestep_map(table, self.folder / "timesteps.png", title)

    def _before_after(self) -> None:
        from cad_exp.reporting.figures.before_after import before_after

        shown = {
            variant: {
                prompt: pngs.load([files[i] for i in rows])
                for prompt, rows in contact_sheet.choice(self.graph.requests).items()
            }
            for variant, files in self.pictures.items()
        }
        title = f"{self.config['concept']['name']}: before and after"
        before_after(shown, self.folder / "before_after.png", title)

    def _mirror(self, tracker: Tracker, drawn: list[str]) -> None:
        """Copy everything to the tracker, whose failures cost nothing."""
        tracker.log_facts(self.results.run)
        tracker.log_metrics(self.results.metrics)
        titles = {"attribution.png": "attribution/map"}  # beside the tables of scores
        tracker.log_images({titles.get(name, Path(name).stem): self.folder / name for name in drawn})
        if (self.folder / REPORT).is_file():
            tracker.log_page("report", self.folder / REPORT)
        if (self.folder / FILE).exists():
            tracker.log_attribution(self.folder)
        if (self.folder / "records.parquet").exists():
            places = {
                v: [self.folder / image_name(v, request) for request in self.graph.requests]
                for v in self.graph.pictures
            }
            tracker.log_records(self.folder / "records.parquet", places)
        for type, name in (("attribution", FILE), ("edit", "edit.safetensors"), ("results", "results.json")):
            if (self.folder / name).exists():
                tracker.log_artifact(self.folder / name, type)


def images(runtime: Runtime, graph: Attribute, folder: Path) -> None:
    """Write folder/images/variant/purpose/prompt-seed.png for every image but explicit ones that are dropped."""
    if not distributed.main():
        return
    for variant, node in graph.pictures.items():
        kept = [part.redacted != "dropped" for part in node.parts for _ in part.seeds]
        for asked, file, keep in zip(graph.requests, runtime.get(node), kept, strict=True):
            if keep:
                link(file, folder / image_name(variant, asked))


def counterfactuals(runtime: Runtime, graph: Attribute, folder: Path) -> None:
    """Write folder/counterfactuals/component-number.png, and a table that says what each of them is."""
    assert graph.scores is not None
    name = graph.scores.granularity
    scored = runtime.get(graph.scores)
    asked = {(request.prompt, request.seed): request for request in graph.requests}
    rows = []
    for pictures, edit in graph.switched_off(runtime):
        component = edit.meta["component"]
        row = scored.tables[name].iloc[component]
        places = [place for part in pictures.parts for place in zip(part.prompts, part.seeds, strict=True)]
        for number, (place, file) in enumerate(zip(places, runtime.get(pictures), strict=True)):
            shown = f"{OFF}/{component}-{number}.png"
            link(file, folder / shown)
            facts = {"component": component, "name": row["name"], "score": float(row["score"]), "file": shown}
            rows.append(facts | {key: getattr(asked[place], key) for key in OF_REQUEST})
    with atomic(folder / f"{OFF}.parquet") as draft:
        pd.DataFrame(rows).to_parquet(draft)


def image_name(variant: str, request: ImageRequest) -> str:
    """Return the path of an image within the run's folder."""
    return f"images/{variant}/{contact_sheet.file_name(request)}"


def table(results: Results, folder: Path) -> None:
    """Show the table on the terminal, and where everything lies."""
    if distributed.main():
        with harmless("the table"):
            summary.show_run(results.as_dict(), folder)
