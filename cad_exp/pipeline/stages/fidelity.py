"""The fidelity study: do the scores predict ablations, in J and in images, and is the ranking stable?"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from cad_exp.data.requests import ImageRequest
from cad_exp.pipeline.stage import Stage, Tick
from cad_exp.pipeline.stages.ablations import GameOfImages, GameOfJ, Remembered
from cad_exp.pipeline.stages.interactions import SecondOrderOfJ
from cad_exp.pipeline.stages.judge import Judge
from cad_exp.pipeline.stages.noisy_latents import PromptLatents, Trajectories
from cad_exp.pipeline.stages.scores import SpaceScores
from cad_exp.utils import console, distributed, progress
from cad_exp.utils.io import write_json

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from cad_exp.attribution.interactions.second_order import SecondOrder
    from cad_exp.data.noisy_latents import NoisyLatents
    from cad_exp.pipeline.runtime import Runtime

Metrics = list[dict[str, Any]]
PAIRS = "interactions.parquet"
FOR_PAIRS = 96  # noisy latents at most, where every pair of components is measured: each component goes over them


@dataclass(frozen=True, eq=False)
class Fidelity(Stage[tuple[Metrics, Path]]):
    """The study of the scores of one granularity, with the settings of `evaluation.fidelity`.

    held_out: other noisy latents than those of the scores; None: the same. concept: the group of the config. requests:
    images of the concept for every ablation, which `judge` sees, batch_size at once; without them J alone is asked.
    """

    folder: ClassVar[str] = "fidelity"
    shared: ClassVar[bool] = True
    scores: SpaceScores
    held_out: PromptLatents | None
    settings: dict[str, Any]
    seed: int
    concept: dict[str, Any]
    judge: Judge | None = None
    thresholds: dict[str, Any] | None = None
    requests: tuple[ImageRequest, ...] = ()
    batch_size: int = 64

    def make(self, runtime: Runtime, folder: Path, tick: Tick) -> None:
        """Ask all questions; write the metrics and the records of all ablations."""
        import pandas as pd

        study = _Study(runtime, self)
        metrics, records = study.of_objective()
        metrics += study.agreement()
        if self.settings["images"]:
            more, seen = study.of_images(records)
            metrics, records = metrics + more, pd.concat([records, seen], ignore_index=True)
        if distributed.main():
            study.pairs(folder)
            records.to_parquet(folder / "fidelity.parquet")
            write_json(folder / "fidelity.json", metrics)

    def load(self, runtime: Runtime, folder: Path) -> tuple[Metrics, Path]:
        """Return the metrics, and the file of the records."""
        metrics: Metrics = json.loads((folder / "fidelity.json").read_text(encoding="utf-8"))
        return metrics, folder / "fidelity.parquet"


class _Study:
    """One run's questions to its scores."""

    def __init__(self, runtime: Runtime, stage: Fidelity):
        from cad_exp.evaluation.fidelity.statistics import spread

        self.runtime, self.stage, self.settings, self.seed = runtime, stage, stage.settings, stage.seed
        self.whole = stage.scores.scores
        self.question, self.attribution = self.whole.question, runtime.get(stage.scores)
        [(self.name, self.space)] = self.attribution.spaces.items()
        self.scores, self.scored = self.attribution.scores[self.name], runtime.get(self.whole.latents)
        latents = (self.whole.latents, *([stage.held_out] if stage.held_out else []))
        rows = spread(len(runtime.get(latents[-1])), self.settings["noisy_latents"], self.seed)
        self.where = (self.name, tuple(self.space.kinds), stage.scores)
        self.node = GameOfJ(self.question, latents, tuple(rows.tolist()), *self.where)
        self.facts = {"estimator": self.whole.estimator.name, "concept": stage.concept["name"]}
        self.facts["latents_of"] = "other trajectories" if stage.held_out else "the attribution"

    def of_objective(self) -> tuple[Metrics, pd.DataFrame]:
        """Compare the predicted with the true change of J."""
        from cad_exp.evaluation.fidelity.metrics import describe, fidelity_metrics

        game = Remembered(self.runtime, self.node)
        self.base = describe(game, self.seed, self.facts)
        with progress.progress(self.settings["number"], "fidelity") as tick:
            how = (self.scores, self.settings, self.seed, self.base, tick)
            found, records = fidelity_metrics(game, *how, second=self.second)
        return found, records.assign(measure="J")

    @cached_property
    def second(self) -> SecondOrder | None:
        """Return what predicts by interactions as well, measured at noisy latents of the scores; None: not asked."""
        from cad_exp.attribution.interactions.second_order import FEW
        from cad_exp.evaluation.fidelity.statistics import spread

        number = self.settings["second_order"]
        if number is None:
            return None
        if self.space.n <= FEW:
            number = min(number, FOR_PAIRS)
        rows = spread(len(self.scored), number, self.seed)
        game = GameOfJ(self.question, (self.whole.latents,), tuple(rows.tolist()), *self.where)
        return self.runtime.get(SecondOrderOfJ(game, self.seed))

    def pairs(self, folder: Path) -> None:
        """Write what every pair of components does together, where that was measured."""
        from cad_exp.attribution.interactions.findings import clusters_of, pairs_of

        second = self.second
        if second is None or second.pairs is None:
            return
        pairs, names = second.pairs.numpy(), self.space.table()["name"].tolist()
        table = pairs_of(pairs, second.scores.numpy(), names)
        clusters = clusters_of(pairs)
        table["one_cluster"], table["other_cluster"] = clusters[table["one"]], clusters[table["other"]]
        table.to_parquet(folder / PAIRS)

    def of_images(self, records: pd.DataFrame) -> tuple[Metrics, pd.DataFrame]:
        """Compare the predicted change of J, and the true one (`records`), with the change of what the judge sees."""
        import pandas as pd

        from cad_exp.evaluation.fidelity.image_game import MEASURES
        from cad_exp.evaluation.fidelity.metrics import fidelity_metrics, proxy_metrics

        asked, stage, model = self.settings["images"], self.stage, self.question.model
        assert stage.judge is not None and stage.thresholds is not None
        settings = self.settings | {key: value for key, value in asked.items() if key != "samples"}
        number = len(stage.requests)
        console.stage(f"fidelity on images: {number} for each ablation, {asked['number']} of each kind and rate")
        how = (model.steps, *self.where, stage.batch_size)
        game = self.runtime.get(GameOfImages(model, stage.judge, stage.thresholds, stage.requests, *how))
        judge_is = self.runtime.get(stage.judge).definition
        facts = self.base | judge_is | {"images": number, "ablation_in_images": "zero"}
        found: Metrics = []
        tables: list[pd.DataFrame] = []
        for measure, of in MEASURES.items():
            with progress.progress(asked["number"], f"images, {measure}") as tick:
                named: dict[str, Any] = {"prefix": f"images_{measure}", "of": of}
                play = game.measured(measure)
                facts |= {"measure": measure, "intact": play.intact}
                more, table = fidelity_metrics(play, self.scores, settings, self.seed, facts, tick, **named)
            proxies = proxy_metrics(records, table, facts, self.settings["bootstrap"], self.seed, **named)
            found, tables = found + more + proxies, [*tables, table.assign(measure=measure)]
        _say_poor(found, self.question.chosen.name)
        return found, pd.concat(tables, ignore_index=True)

    def agreement(self) -> Metrics:
        """Measure whether the ranking is stable, how that grows, and whether controls destroy it.

        It grows with the number of noisy latents.
        """
        from cad_exp.evaluation.fidelity.metrics import agreement_metrics
        from cad_exp.evaluation.fidelity.statistics import growth, halves, sanity, stability

        settings, scored = self.settings, self.scored
        stable: list[dict[str, Any]] = []
        walked = self.whole.latents.parts[0]
        steps = walked.steps if isinstance(walked, Trajectories) else 1
        base = self.base | {"between": "the halves of the noisy latents", "noisy_latents": len(scored)}

        @cache
        def pair(number: int) -> list[Tensor]:
            return [self._score(scored[rows], rows) for rows in halves(len(scored), number, steps, self.seed)]

        if settings["stability"]:
            stable.append(stability(pair(len(scored) // 2)))
            if not stable[0]["stable"]:
                console.say(f"  {stable[0]['verdict']}", style="yellow")
        most = min(map(len, halves(len(scored), len(scored), steps, self.seed)))
        stable += growth(pair, [number for number in settings["growth"] if 1 <= number <= most])
        controls = self._controls() if settings["sanity"] and isinstance(walked, Trajectories) else {}
        return agreement_metrics(base, stable, sanity(self.scores, controls) if controls else None)

    def _controls(self) -> dict[str, Tensor]:
        """Return the scores of another concept, and of a model with random weights."""
        from cad_exp.data.noisy_latents import sample_trajectory
        from cad_exp.evaluation.fidelity.metrics import other_concept
        from cad_exp.evaluation.fidelity.statistics import random_weights

        parts = [part for part in self.whole.latents.parts if isinstance(part, Trajectories)]
        first, model = parts[0], self.runtime.get(self.question.model)
        seeds = [seed for part in parts for seed in part.seeds]
        how = (first.base_prompt, seeds, first.steps, first.guidance, first.batch_size)

        def sample(prompt: str) -> NoisyLatents:
            return sample_trajectory(model, prompt, *how)

        other = other_concept(self.settings["sanity"], self.stage.concept)
        controls = {"other_concept": self._score(sample(other))}
        with random_weights(model.denoiser, self.seed):
            controls["random_weights"] = self._score(sample(self.scored.prompt))
        return controls

    def _score(self, points: NoisyLatents, rows: Tensor | None = None) -> Tensor:
        """Score the components at these points.

        rows: which of the run's they are, for what is to be retained has as many.
        """
        from cad_exp.attribution.attribute import attribute
        from cad_exp.attribution.estimators import make_estimator

        kept = self.question.kept(self.runtime, lambda part: part if rows is None else part[rows])
        objective, estimator = self.runtime.get(self.question)(points, kept), self.whole.estimator.settings
        model = self.runtime.get(self.question.model)
        return attribute(model, points, objective, make_estimator(**estimator), [self.space]).scores[self.name]


def _say_poor(metrics: Metrics, objective: str) -> None:
    """Warn where J is a poor stand-in for images."""
    from cad_exp.evaluation.fidelity.thresholds import POOR

    rows = [m for m in metrics if m["name"].startswith("images_log_odds_proxy@") and m["definition"]["rate"]]
    poor = {m["definition"]["rate"]: m["value"] for m in rows if m["value"] is not None and m["value"] < POOR}
    if poor:
        told = ", ".join(f"{value:.2f} at {rate:.3g}" for rate, value in poor.items())
        what = f"objective {objective} is a poor stand-in for images: its changes correlate with the judge's by {told}"
        console.say(f"  {what}", style="yellow")
