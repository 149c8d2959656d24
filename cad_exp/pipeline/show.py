"""What shows a run whose results are complete: images, pictures, the tracker's mirror.

With several processes only the first draws. None of this can cost the results: what cannot be made is named on one
line, and in `left_out`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd

from cad_exp.attribution.attribute import FILE, Attribution
from cad_exp.config.resolve import Config
from cad_exp.data.requests import ImageRequest
from cad_exp.evaluation import verdict
from cad_exp.evaluation.fidelity.image_game import MEASURES
from cad_exp.pipeline.drawing import Drawings, draw
from cad_exp.pipeline.runtime import Runtime
from cad_exp.pipeline.stages.fidelity import PAIRS
from cad_exp.pipeline.tasks.attribute import Attribute
from cad_exp.reporting import contact_sheet
from cad_exp.reporting.results import REPORT, Results
from cad_exp.reporting.tracking.tracker import Tracker
from cad_exp.reporting.wording import units
from cad_exp.utils import distributed
from cad_exp.utils import images as pngs
from cad_exp.utils.io import atomic, link

OFF = "counterfactuals"  # folder of images with one component switched off, and with its ending their table
OF_REQUEST = ("purpose", "prompt", "seed", "kind", "label", "row")


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
        names = figures.within(layers, rows["name"].tolist())
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
