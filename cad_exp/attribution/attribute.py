"""Attribution: a signed score for every component, with a table that names every component."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from cad_exp.attribution.estimators import make_estimator
from cad_exp.attribution.estimators.base import Estimator, Scores
from cad_exp.attribution.game import Game
from cad_exp.attribution.objectives.build import Objective, make_objective
from cad_exp.data.noisy_latents import Probes
from cad_exp.interventions.spaces import (
    FF_IN,
    GRANULARITIES,
    KINDS,
    OPTIONAL,
    TEXT,
    Granularity,
    Site,
    Weight,
    find_sites,
    make_granularity,
)
from cad_exp.interventions.text_encoders import text_sites
from cad_exp.models.pipeline import DiffusionModel
from cad_exp.utils.errors import UserError, choose
from cad_exp.utils.finite import refusal
from cad_exp.utils.io import atomic, plain
from cad_exp.utils.tensors import load_tensors, save_tensors

FILE, TABLE = "attribution.safetensors", "components.parquet"
ERROR = ".error"  # what the file calls the standard errors of a granularity, after its name


@dataclass
class Attribution:
    """scores: granularity -> (n,) fp32; tables: granularity -> one row per component (weights: per matrix).

    errors: granularity -> (n,) fp32 standard errors of the scores, where the estimator knows them.
    """

    scores: dict[str, Tensor]
    sites: list[Site]
    granularities: dict[str, Granularity]
    meta: dict = field(default_factory=dict)
    errors: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.tables = {name: self._table(name) for name in self.granularities}

    def granularity(self, name: str) -> Granularity:
        """The granularity that was attributed under this name. UserError if it was not."""
        return self.granularities[choose(name, self.granularities, "granularity in this attribution")]

    def narrow(self, name: str, kinds: Iterable[str] | None) -> "Attribution":
        """Only this granularity, in sites of these kinds (None: all that were attributed). UserError for none."""
        full = self.granularity(name)
        cut = full if kinds is None else make_granularity(name, kinds)
        absent = [kind for kind in cut.kinds if not full.covers(kind)]
        if absent:
            raise UserError(f"the {name} attribution has no {absent[0]}: attribute it with kinds that hold it")
        parts = [torch.full((full.parts(site),), cut.covers(site.kind)) for site in full.sites(self.sites)]
        keep = torch.cat(parts or [torch.zeros(0, dtype=torch.bool)])
        errors = {name: self.errors[name][keep]} if name in self.errors else {}
        return Attribution({name: self.scores[name][keep]}, self.sites, {name: cut}, self.meta, errors)

    def _table(self, name: str) -> pd.DataFrame:
        """Names with scores; a matrix's `positive` and `negative` are the sums of its positive and negative weights."""
        table, scores = self.granularities[name].table(self.sites), self.scores[name]
        columns = {"score": scores, "positive": scores.clamp(min=0), "negative": scores.clamp(max=0)}
        if name in self.errors and name != "weight":
            columns["error"] = self.errors[name]
        for column, values in columns.items():
            if name == "weight":
                values = torch.tensor(
                    [float(values[a:b].sum()) for a, b in zip(table["start"], table["stop"], strict=True)]
                )
            table[column] = values.numpy()
        return table

    def save(self, folder: str | Path) -> Path:
        """Write attribution.safetensors and components.parquet into the folder, each atomically."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        tables = [table.assign(granularity=name) for name, table in self.tables.items()]
        with atomic(folder / TABLE) as draft:
            pd.concat(tables, ignore_index=True).to_parquet(draft)
        kinds = {name: list(granularity.kinds) for name, granularity in self.granularities.items()}
        meta = {"sites": [asdict(site) for site in self.sites], "kinds": kinds, "meta": self.meta}
        errors = {name + ERROR: error for name, error in self.errors.items()}
        return save_tensors(folder / FILE, "attribution", self.scores | errors, meta)

    @classmethod
    def load(cls, folder: str | Path) -> "Attribution":
        """Read an attribution from its folder (or its file). UserError if it is missing or damaged."""
        path = Path(folder)
        tensors, meta = load_tensors(path / FILE if path.suffix != ".safetensors" else path, "attribution")
        scores = {name: tensor for name, tensor in tensors.items() if not name.endswith(ERROR)}
        errors = {name.removesuffix(ERROR): tensor for name, tensor in tensors.items() if name.endswith(ERROR)}
        sites = [Site(**{**site, "shape": tuple(site["shape"])}) for site in meta["sites"]]
        cuts = {name: make_granularity(name, kinds) for name, kinds in meta["kinds"].items()}
        return cls(scores, sites, cuts, meta["meta"], errors)


def attribute(
    model: DiffusionModel,
    probes: Probes,
    objective: str | Objective = "erase",
    estimator: str | Estimator = "first_order",
    granularities: Iterable[str | Granularity] = tuple(GRANULARITIES),
    sites: Sequence[Site] | None = None,
    batch_size: int = 16,
    meta: dict | None = None,
) -> Attribution:
    """Score every component at the given granularities: of the denoiser, and of text encoders if their kinds are asked.

    One estimate of single weights serves all of them where the estimator is additive; any other estimates each of them
    anew. `meta` is kept beside the scores, and under "estimate" what the estimator says of its estimate (of several:
    by granularity). Raises UserError if a score is not finite (half precision may overflow), or if the estimator is
    not for a granularity.
    """
    if isinstance(objective, str):
        objective = make_objective(objective, model, probes, batch_size)
    if isinstance(estimator, str):
        estimator = make_estimator(estimator)
    cuts = [make_granularity(cut) if isinstance(cut, str) else cut for cut in granularities]
    every = list(_sites(model, cuts) if sites is None else sites)
    used = [site for site in every if any(cut.covers(site.kind) for cut in cuts)]
    found, intact = _estimates(objective, estimator, cuts, used)
    broken = [name for name, scores in found.items() if not torch.isfinite(scores.values).all()]
    if broken:
        raise refusal(f"a score of granularity {' and '.join(broken)}", model)
    told = [scores.facts for scores in found.values()]
    facts = {
        "model": model.name,
        "fingerprint": model.fingerprint(),
        "prompt": probes.prompt,
        "base_prompt": probes.base_prompt,
        "objective": objective.name,
        "estimator": estimator.name,
        "estimate": plain(told[0] if estimator.additive or len(told) == 1 else dict(zip(found, told, strict=True))),
        "intact": intact,
        "n_probes": len(probes),
        "probes": probes.meta,
    }
    values = {name: scores.values for name, scores in found.items()}
    errors = {name: scores.errors for name, scores in found.items() if scores.errors is not None}
    return Attribution(values, used, {cut.name: cut for cut in cuts}, facts | (meta or {}), errors)


def _sites(model: DiffusionModel, cuts: Sequence[Granularity]) -> list[Site]:
    """Where the cuts' components are; the text encoders come first, as in the forward pass."""
    asked = {kind for cut in cuts for kind in cut.kinds}
    return [*(text_sites(model.pipe) if asked & set(TEXT) else ()), *find_sites(model.denoiser, FF_IN in asked)]


def _estimates(
    objective: Objective, estimator: Estimator, cuts: Sequence[Granularity], sites: Sequence[Site]
) -> tuple[dict[str, Scores], float | None]:
    """Scores by granularity, and J of the intact model where the estimator had to know it."""
    if estimator.additive:
        game = Game(objective, Weight(KINDS + OPTIONAL), sites)
        scores = estimator.estimate(game)
        weights = game.split(scores.values)
        found = {cut.name: Scores(cut.reduce(weights, sites), None, scores.facts) for cut in cuts}
    else:
        games = {cut.name: Game(objective, cut, sites) for cut in cuts}
        found = {name: estimator.estimate(game) for name, game in games.items()}
        game = next(iter(games.values()))
    return found, vars(game).get("intact")
