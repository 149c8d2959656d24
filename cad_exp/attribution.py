"""Attribution: a signed score for every component, with a table that names every component."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from cad_exp.components import GRANULARITIES, Granularity, Site, find_sites, make_granularity
from cad_exp.errors import UserError, choose
from cad_exp.estimators import Estimator, make_estimator
from cad_exp.files import atomic
from cad_exp.model import DiffusionModel
from cad_exp.objectives import Objective, make_objective
from cad_exp.probes import Probes
from cad_exp.storage import load_tensors, save_tensors

FILE, TABLE = "attribution.safetensors", "components.parquet"


@dataclass
class Attribution:
    """scores: granularity -> (n,) fp32; tables: granularity -> one row per component (weights: per matrix)."""

    scores: dict[str, Tensor]
    sites: list[Site]
    granularities: dict[str, Granularity]
    meta: dict = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.tables = {name: self._table(name) for name in self.granularities}

    def granularity(self, name: str) -> Granularity:
        """The granularity that was attributed under this name. UserError if it was not."""
        return self.granularities[choose(name, self.granularities, "granularity in this attribution")]

    def narrow(self, name: str, kinds: Iterable[str] | None) -> "Attribution":
        """Only this granularity, in sites of these kinds (None: all that were attributed). UserError for none."""
        full = self.granularity(name)
        cut = full if kinds is None else make_granularity(name, kinds)
        absent = [kind for kind in cut.kinds if kind not in full.kinds]
        if absent:
            raise UserError(f"the {name} attribution has no {absent[0]}: attribute it with kinds that hold it")
        keep = [torch.full((full.parts(site),), site.kind in cut.kinds) for site in full.sites(self.sites)]
        return Attribution({name: self.scores[name][torch.cat(keep)]}, self.sites, {name: cut}, self.meta)

    def _table(self, name: str) -> pd.DataFrame:
        """Names with scores; a matrix's `positive` and `negative` are the sums of its positive and negative weights."""
        table, scores = self.granularities[name].table(self.sites), self.scores[name]
        columns = {"score": scores, "positive": scores.clamp(min=0), "negative": scores.clamp(max=0)}
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
        return save_tensors(folder / FILE, "attribution", self.scores, meta)

    @classmethod
    def load(cls, folder: str | Path) -> "Attribution":
        """Read an attribution from its folder (or its file). UserError if it is missing or damaged."""
        path = Path(folder)
        scores, meta = load_tensors(path / FILE if path.suffix != ".safetensors" else path, "attribution")
        sites = [Site(**{**site, "shape": tuple(site["shape"])}) for site in meta["sites"]]
        return cls(scores, sites, {n: make_granularity(n, kinds) for n, kinds in meta["kinds"].items()}, meta["meta"])


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
    """Score every component of the denoiser at the given granularities; one estimate serves them all.

    `meta` is kept beside the scores. Raises UserError if a score is not finite (half precision may overflow).
    """
    if isinstance(objective, str):
        objective = make_objective(objective, model, probes, batch_size)
    if isinstance(estimator, str):
        estimator = make_estimator(estimator)
    cuts = [make_granularity(cut) if isinstance(cut, str) else cut for cut in granularities]
    every = list(find_sites(model.denoiser) if sites is None else sites)
    used = [site for site in every if any(site.kind in cut.kinds for cut in cuts)]
    weights = estimator.estimate(objective, used)
    broken = [name for name, score in weights.items() if not torch.isfinite(score).all()]
    if broken:
        raise UserError(f"the scores of {len(broken)} modules are not finite ({broken[0]}, ...): use precision=fp32")
    facts = {
        "model": model.name,
        "fingerprint": model.fingerprint(),
        "prompt": probes.prompt,
        "base_prompt": probes.base_prompt,
        "objective": objective.name,
        "estimator": estimator.name,
        "intact": estimator.intact,
        "n_probes": len(probes),
        "probes": probes.meta,
    }
    return Attribution(
        {c.name: c.reduce(weights, used) for c in cuts}, used, {c.name: c for c in cuts}, facts | (meta or {})
    )
