"""Studies of the scores, each through the cache: do they predict ablations, in J and in images, and are they stable?

They read the stages' probes and attribution and ask the model again. With several processes all compute in common.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from cad_exp.attribution.attribute import Attribution, attribute
from cad_exp.attribution.by_timestep import by_timestep, checkpoint_of, within
from cad_exp.attribution.estimators import make_estimator
from cad_exp.attribution.game import Game
from cad_exp.attribution.objectives.build import Objective
from cad_exp.data.noisy_latents import Probes, sample_trajectory
from cad_exp.data.requests import plan
from cad_exp.evaluation.fidelity.image_game import MEASURES, ImageGame, Remember
from cad_exp.evaluation.fidelity.metrics import (
    agreement_metrics,
    describe,
    fidelity_metrics,
    other_concept,
    proxy_metrics,
)
from cad_exp.evaluation.fidelity.statistics import growth, halves, random_weights, sanity, spread, stability
from cad_exp.evaluation.fidelity.thresholds import POOR
from cad_exp.pipeline.code import code_version
from cad_exp.pipeline.stages import Stages, seeds_of
from cad_exp.utils import console, distributed, progress
from cad_exp.utils.errors import UserError
from cad_exp.utils.hashing import digest
from cad_exp.utils.io import write_json


def fidelity(stages: Stages, probes: Probes, attribution: Attribution) -> tuple[list[dict[str, Any]], Path | None]:
    """How well the scores of the run's granularity predict ablations, as metrics, and the records' file.

    Nothing when `evaluation.fidelity` is null.
    """
    config = stages.config
    settings = config["evaluation"]["fidelity"]
    if settings is None:
        return [], None
    if settings["held_out"] and probes.meta["kind"] != "trajectory":
        raise UserError("evaluation.fidelity.held_out needs trajectories: leave it out with objective=amplify")
    study = _Study(stages, probes, attribution)
    console.stage(f"fidelity: {settings['number']} ablations at each of {', '.join(map(str, settings['rates']))}")

    def make(draft: Path) -> None:
        found, records = study.of_objective()
        found += study.agreement()
        if settings["images"]:
            more, seen = study.of_images(records)
            found, records = found + more, pd.concat([records, seen], ignore_index=True)
        if distributed.main():
            records.to_parquet(draft / "fidelity.parquet")
            write_json(draft / "fidelity.json", found)

    inputs = study.inputs | {"scores": stages.scores.name, "settings": settings, "seed": config["seed"]}
    if settings["images"]:
        inputs |= {
            "evaluation_seed": config["evaluation"]["seed"],
            "concept": config["concept"],
            "how": config["model"],
        }
        inputs |= {"judge_is": stages.judge.definition}
    place = stages.cache.get("fidelity", ("pipeline.studies", *stages.modules), inputs, make, shared=True)
    if stages.cache.reused["fidelity"]:
        console.say("  fidelity: from the cache")
    return json.loads((place / "fidelity.json").read_text(encoding="utf-8")), place / "fidelity.parquet"


class _Study:
    """One run's questions to its scores; `inputs` says what the true effects depend on."""

    def __init__(self, stages: Stages, probes: Probes, attribution: Attribution):
        self.stages, self.config, self.attribution = stages, stages.config, attribution
        self.settings, self.seed = stages.config["evaluation"]["fidelity"], stages.config["seed"]
        [(self.name, self.space)] = attribution.spaces.items()
        self.scores, self.scored = attribution.scores[self.name], probes
        parts, walked = stages.parts, stages.config["probes"]
        if self.settings["held_out"]:
            concept, stages.parts = self.config["concept"], []
            number = -(-self.settings["probes"] // walked["steps"])
            probes = stages.sample(concept["prompt"], concept["base_prompt"], walked["images"], number)
            stages.parts, parts = parts, [*stages.parts, *parts]
        self.rows = spread(len(probes), self.settings["probes"], self.seed)
        self.probes = probes[self.rows]
        self.facts = {"estimator": self.config["estimator"]["name"], "concept": self.config["concept"]["name"]}
        self.facts["probes_of"] = "other trajectories" if self.settings["held_out"] else "the attribution"
        self.inputs = stages.base | self.facts | {"granularity": self.name, "kinds": list(self.space.kinds)}
        self.inputs |= {"objective": self.config["objective"], "probes": [part.name for part in parts]}
        self.inputs |= {"batch_size": self.config["runtime"]["batch_size"], "processes": distributed.size()}
        self.inputs |= {"who": stages.who}

    def of_objective(self) -> tuple[list[dict[str, Any]], pd.DataFrame]:
        """Predicted against true change of J."""
        inputs = {key: value for key, value in self.inputs.items() if key not in ("estimator", "probes_of")}
        inputs |= {"rows": self.rows.tolist()}
        game = _Remembered(
            Game(self.stages.objective(self.probes), self.space),
            self._remember(("attribution.game", *self.stages.modules[1:]), inputs),
        )
        self.base = describe(game, self.seed, self.facts)
        with progress.progress(self.settings["number"], "fidelity") as tick:
            found, records = fidelity_metrics(game, self.scores, self.settings, self.seed, self.base, tick)
        return found, records.assign(measure="J")

    def of_images(self, records: pd.DataFrame) -> tuple[list[dict[str, Any]], pd.DataFrame]:
        """Predicted change of J, and the true one (`records`), against the change of what the judge sees."""
        asked, concept = self.settings["images"], self.config["concept"]
        settings = self.settings | {key: value for key, value in asked.items() if key != "samples"}
        shots = plan(concept, asked["samples"], 0, self.config["evaluation"]["seed"])
        shots = [shot for shot in shots if shot.purpose == "concept"]
        model = self.config["model"]
        inputs = self.stages.base | {"shots": [vars(shot) for shot in shots], "kinds": list(self.space.kinds)}
        inputs |= {"granularity": self.name}
        inputs |= {key: model[key] for key in ("steps", "guidance", "judge")}
        inputs |= {"judge_is": self.stages.judge.definition}
        console.stage(f"fidelity on images: {len(shots)} for each ablation, {asked['number']} of each kind and rate")
        remember = self._remember(("evaluation.fidelity.image_game", "evaluation.judges"), inputs)
        batch, judge = self.config["evaluation"]["batch_size"], self.stages.judge
        game = ImageGame(self.stages.model, judge, shots, self.space, remember, batch)
        facts = self.base | judge.definition | {"images": len(shots), "removal_in_images": "zero"}
        found, tables = [], []
        for measure, of in MEASURES.items():
            with progress.progress(asked["number"], f"images, {measure}") as tick:
                how = {"prefix": f"images_{measure}", "of": of}
                play = game.measured(measure)
                facts |= {"measure": measure, "intact": play.intact}
                more, table = fidelity_metrics(play, self.scores, settings, self.seed, facts, tick, **how)
            proxies = proxy_metrics(records, table, facts, self.settings["bootstrap"], self.seed, **how)
            found, tables = found + more + proxies, [*tables, table.assign(measure=measure)]
        _say_poor(found, self.config["objective"]["name"])
        return found, pd.concat(tables, ignore_index=True)

    def agreement(self) -> list[dict[str, Any]]:
        """Whether the ranking is stable, how that grows with the probes, and whether controls destroy it."""
        settings, walked, scored = self.settings, self.config["probes"], self.scored
        stable, controls = [], {}
        base = self.base | {"between": "the halves of the probes", "probes": len(scored)}
        steps = walked["steps"] if scored.meta["kind"] == "trajectory" else 1

        @cache
        def pair(number: int) -> list[Tensor]:
            return [self._score(scored[rows], rows) for rows in halves(len(scored), number, steps, self.seed)]

        if settings["stability"]:
            stable.append(stability(pair(len(scored) // 2)))
            if not stable[0]["stable"]:
                console.say(f"  {stable[0]['verdict']}", style="yellow")
        most = min(map(len, halves(len(scored), len(scored), steps, self.seed)))
        stable += growth(pair, [number for number in settings["growth"] if 1 <= number <= most])
        if settings["sanity"] and scored.meta["kind"] == "trajectory":
            how = {"base_prompt": scored.base_prompt, "seeds": seeds_of(walked, walked["samples"])}
            how |= {name: walked[name] for name in ("steps", "guidance", "batch_size")}
            other, model = other_concept(settings["sanity"], self.config["concept"]), self.stages.model
            controls["other_concept"] = self._score(sample_trajectory(model, other, **how))
            with random_weights(model.denoiser, self.seed):
                controls["random_weights"] = self._score(sample_trajectory(model, scored.prompt, **how))
        return agreement_metrics(base, stable, sanity(self.scores, controls) if controls else None)

    def _score(self, points: Probes, rows: Tensor | None = None) -> Tensor:
        """Scores at these probes; rows: which of the run's they are, for what is to be retained has as many."""
        kept = [part if rows is None else part[rows] for part in self.stages.context["retained"]]
        estimator, objective = make_estimator(**self.config["estimator"]), self.stages.objective(points, kept)
        found = attribute(self.stages.model, points, objective, estimator, [self.space])
        return found.scores[self.name]

    def _remember(self, modules: tuple[str, ...], inputs: dict[str, Any]) -> Remember:
        """Answers as entries of the cache: studies share those to the same questions, a killed one goes on."""

        def remember(gates: Tensor, answer: Callable[[], Tensor]) -> Tensor:
            bits = blake2b(np.packbits(gates.numpy().astype(bool)).tobytes(), digest_size=16).hexdigest()

            def make(draft: Path) -> None:
                write_json(draft / "values.json", answer().tolist())

            asked = inputs | {"gates": bits, "number": len(gates)}
            place = self.stages.cache.get("ablations", modules, asked, make, shared=True)
            values = json.loads((place / "values.json").read_text(encoding="utf-8"))
            return torch.from_numpy(np.array(values, dtype=np.float64))  # what is not finite was written as null

        return remember


class _Remembered:
    """A game of J whose answers are remembered."""

    def __init__(self, game: Game, remember: Remember):
        self.game, self.remember, self.n = game, remember, game.n
        self.objective, self.space, self.intact = game.objective, game.space, game.intact

    def values(self, gates: Tensor) -> Tensor:
        return self.remember(gates, lambda: self.game.values(gates))


def _say_poor(metrics: list[dict[str, Any]], objective: str) -> None:
    """Say where J is a poor stand-in for images."""
    rows = [m for m in metrics if m["name"].startswith("images_log_odds_proxy@") and m["definition"]["rate"]]
    poor = {m["definition"]["rate"]: m["value"] for m in rows if m["value"] is not None and m["value"] < POOR}
    if poor:
        told = ", ".join(f"{value:.2f} at {rate:.3g}" for rate, value in poor.items())
        what = f"objective {objective} is a poor stand-in for images: its changes correlate with the judge's by {told}"
        console.say(f"  {what}", style="yellow")


def timesteps(stages: Stages, probes: Probes, attribution: Attribution) -> Path | None:
    """The file of the scores per bin of timesteps, at the run's granularity; all processes compute it together.

    Nothing when `evaluation.timesteps`, the number of bins, is null.
    """
    config, bins = stages.config, stages.config["evaluation"]["timesteps"]
    if bins is None:
        return None
    space, estimator = attribution.space(config["granularity"]["name"]), make_estimator(**config["estimator"])
    console.stage(f"timesteps: {estimator.name} in {bins} parts of the denoising")
    inputs = stages.base | {"scores": stages.scores.name, "granularity": space.name, "kinds": list(space.kinds)}
    inputs |= {"bins": bins, "processes": distributed.size()}
    key = digest([inputs, code_version("pipeline.studies", *stages.modules)])
    checkpoint = stages.cache.folder / ".checkpoints" / f"{key}.safetensors"

    def objective_of(own: Probes) -> Objective:
        ends = int(own.t.min()), int(own.t.max())
        return stages.objective(own, [within(kept, *ends) for kept in stages.context["retained"]])

    def make(draft: Path) -> None:
        with progress.progress(len(probes), "timesteps") as tick:
            table = by_timestep(objective_of, estimator, probes, space, bins, tick, checkpoint)
        if distributed.main():
            table.to_parquet(draft / "timesteps.parquet")
            for number in range(bins):
                checkpoint_of(checkpoint, number).unlink(missing_ok=True)

    place = stages.cache.get("timesteps", ("pipeline.studies", *stages.modules), inputs, make, shared=True)
    if stages.cache.reused["timesteps"]:
        console.say("  timesteps: from the cache")
    return place / "timesteps.parquet"
