"""Attribution: a signed score for every component, with a table that names every component."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from cad_exp.attribution.estimators import make_estimator
from cad_exp.attribution.estimators.base import Estimator, Scores, Watch
from cad_exp.attribution.game import Game
from cad_exp.attribution.objectives.build import Objective, make_objective
from cad_exp.data.noisy_latents import NoisyLatents
from cad_exp.interventions.spaces import (
    FF_IN,
    KINDS,
    OPTIONAL,
    OWN,
    RESTORED,
    TEXT,
    ComponentSpace,
    Granularity,
    Site,
    Weight,
    find_sites,
    make_granularity,
    text_sites,
)
from cad_exp.models.pipeline import DiffusionModel
from cad_exp.utils.errors import UserError, choose
from cad_exp.utils.finite import refusal
from cad_exp.utils.io import atomic, plain
from cad_exp.utils.tensors import load_tensors, save_tensors

FILE, TABLE = "attribution.safetensors", "components.parquet"
ERROR = ".error"  # what the file calls the standard errors of a granularity, after its name
OF_SPACE = "space."  # and a tensor of a space that was not cut from sites, before the space's name


@dataclass(repr=False)
class Attribution:
    """Hold the scores of one concept, and what they are of.

    scores: granularity -> (n,) fp32; tables: granularity -> one row per component (weights: per matrix).
    spaces: granularity -> the components that were scored. errors: granularity -> (n,) fp32 standard errors of the
    scores, where the estimator knows them.
    """

    scores: dict[str, Tensor]
    spaces: dict[str, ComponentSpace]
    meta: dict[str, Any] = field(default_factory=dict)
    errors: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if any(space.all_sites and list(space.all_sites) != self.sites for space in self.spaces.values()):
            raise UserError("these spaces were cut from different sites: score them one by one")
        self.tables = {name: self._table(name) for name in self.spaces}

    def __repr__(self) -> str:
        counts = ", ".join(f"{space.n:,} {name}s" for name, space in self.spaces.items())
        facts = [self.meta[key] for key in ("concept", "estimator", "objective") if key in self.meta]
        told = " · ".join(str(fact) for fact in [*facts, counts])
        return f"<Attribution {told}>"

    @property
    def sites(self) -> list[Site]:
        """The output projections that the spaces were cut from; none for directions."""
        return list(next((space.all_sites for space in self.spaces.values() if space.all_sites), ()))

    def space(self, name: str) -> ComponentSpace:
        """Return the components that were scored under this name. UserError if none were."""
        return self.spaces[choose(name, self.spaces, "granularity in this attribution")]

    def only(self, granularity: str | None = None) -> str:
        """Return the granularity's name, which may be left out where there is one only. UserError otherwise."""
        if granularity is None and len(self.spaces) > 1:
            raise UserError(f"several granularities were scored: say which of {', '.join(self.spaces)}")
        name = granularity or next(iter(self.spaces))
        self.space(name)
        return name

    def top(self, k: int = 10, granularity: str | None = None, sign: int = 1) -> pd.DataFrame:
        """Return names and scores of the `k` components that help most (sign=1), or suppress most (sign=-1).

        Of weights, which have no names, the matrices. granularity: may be left out where there is one only.
        """
        rows = self.tables[self.only(granularity)][["name", "score"]].sort_values(
            "score", ascending=sign < 0, kind="stable"
        )
        return rows[rows["score"] * sign > 0].head(k).reset_index(drop=True)

    def narrow(self, name: str, kinds: Iterable[str] | None) -> "Attribution":
        """Return only this granularity, in sites of these kinds (None: all that there are). UserError for none."""
        space, keep = self.space(name).narrow(kinds)
        errors = {name: self.errors[name][keep]} if name in self.errors else {}
        return Attribution({name: self.scores[name][keep]}, {name: space}, self.meta, errors)

    def _table(self, name: str) -> pd.DataFrame:
        """Return names with scores.

        A matrix's `positive` and `negative` are the sums of its positive and negative weights.
        """
        space, scores = self.spaces[name], self.scores[name]
        table = space.table()
        columns = {"score": scores, "positive": scores.clamp(min=0), "negative": scores.clamp(max=0)}
        if name in self.errors and space.row_each:
            columns["error"] = self.errors[name]
        return table.assign(**{column: space.tabulate(values).numpy() for column, values in columns.items()})

    def save(self, folder: str | Path) -> Path:
        """Write attribution.safetensors and components.parquet into the folder, each atomically."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        tables = [table.assign(granularity=name) for name, table in self.tables.items()]
        with atomic(folder / TABLE) as draft:
            pd.concat(tables, ignore_index=True).to_parquet(draft)
        kinds = {name: list(space.kinds) for name, space in self.spaces.items() if not space.form}
        settings = {name: dict(space.settings) for name, space in self.spaces.items() if space.settings}
        meta: dict[str, Any] = {"sites": [asdict(site) for site in self.sites], "kinds": kinds, "meta": self.meta}
        meta |= {"settings": settings} if settings else {}
        tensors = self.scores | {name + ERROR: error for name, error in self.errors.items()}
        for name, space in self.spaces.items():
            if space.form:
                own, facts = space.saved()
                tensors |= {f"{OF_SPACE}{name}.{part}": tensor for part, tensor in own.items()}
                meta.setdefault("spaces", {})[name] = {"form": space.form, "facts": facts, "tensors": list(own)}
        return save_tensors(folder / FILE, "attribution", tensors, meta)

    @classmethod
    def load(cls, folder: str | Path) -> "Attribution":
        """Read an attribution from its folder (or its file). UserError if it is missing or damaged."""
        path = Path(folder)
        tensors, meta = load_tensors(path / FILE if path.suffix != ".safetensors" else path, "attribution")
        sites = [Site(**{**site, "shape": tuple(site["shape"])}) for site in meta["sites"]]
        spaces: dict[str, ComponentSpace] = {
            n: make_granularity(n, kinds, **meta.get("settings", {}).get(n, {})).on(sites)
            for n, kinds in meta["kinds"].items()
        }
        for name, told in meta.get("spaces", {}).items():
            own = {part: tensors[f"{OF_SPACE}{name}.{part}"] for part in told["tensors"]}
            form = choose(told["form"], RESTORED, "form of a component space")
            spaces[name] = RESTORED[form].restored(own, told["facts"])
        scores = {name: tensor for name, tensor in tensors.items() if name in spaces}
        errors = {name: tensors[name + ERROR] for name in spaces if name + ERROR in tensors}
        return cls(scores, spaces, meta["meta"], errors)


def attribute(
    model: DiffusionModel,
    latents: NoisyLatents,
    objective: str | Objective = "erase",
    estimator: str | Estimator = "first_order",
    granularities: Iterable[str | Granularity | ComponentSpace] = OWN,
    batch_size: int = 16,
    meta: dict[str, Any] | None = None,
    progress: Callable[[int, int], None] | None = None,
    checkpoint: Path | None = None,
) -> Attribution:
    """Score every component of some spaces, or of the model's own at the given granularities.

    The first-order estimator is CAD's (arXiv 2412.02542). One estimate of single weights serves all granularities where
    the estimator is additive; any other estimates each of them anew.

    Args:
        model: the model that is asked, left as it is.
        latents: the points at which it is asked, of one concept.
        objective: what counts as showing the concept: a name of OBJECTIVES, or one made by `make_objective`.
        estimator: how a score is computed: a name of ESTIMATORS, or one made by `make_estimator`.
        granularities: names, granularities or spaces. Components of text encoders take part where their kinds are asked
            for.
        batch_size: noisy latents of one forward and backward pass.
        meta: kept beside the scores; under "estimate" stands what the estimator says of its estimate.
        progress: progress(done, total) counts evaluations of single noisy latents.
        checkpoint: a file in which estimators of many ablations keep what they have finished.

    Returns:
        The scores, (n,) fp32 for each granularity, in units of the objective. Positive: it makes the concept.

    Raises:
        UserError: a score is not finite (half precision may overflow), or the estimator is not for a granularity.

    Examples:
        >>> model = cad_exp.DiffusionModel.load("mini", device="cpu", steps=2)
        >>> latents = cad_exp.sample_trajectory(model, "church", seeds=[0], steps=2)
        >>> attribution = cad_exp.attribute(model, latents, granularities=["head"])
        >>> attribution.scores["head"].shape == (len(attribution.tables["head"]),)
        True
    """
    if isinstance(objective, str):
        objective = make_objective(objective, model, latents, batch_size)
    if isinstance(estimator, str):
        estimator = make_estimator(estimator)
    spaces = spaces_of(model, granularities)
    found = estimates(objective, estimator, spaces, _own_sites(spaces), Watch(progress, checkpoint))
    broken = [name for name, scores in found.items() if not torch.isfinite(scores.values).all()]
    if broken:
        raise refusal(f"a score of granularity {' and '.join(broken)}", model)
    told = [scores.facts for scores in found.values()]
    facts = {
        "model": model.name,
        "fingerprint": model.fingerprint(),
        "prompt": latents.prompt,
        "base_prompt": latents.base_prompt,
        "objective": objective.name,
        "estimator": estimator.name,
        "estimate": plain(told[0] if estimator.additive or len(told) == 1 else dict(zip(found, told, strict=True))),
        "intact": next(iter(found.values())).intact,
        "n_latents": len(latents),
        "noisy_latents": latents.meta,
    }
    values = {name: scores.values for name, scores in found.items()}
    errors = {name: scores.errors for name, scores in found.items() if scores.errors is not None}
    return Attribution(values, {space.name: space for space in spaces}, facts | (meta or {}), errors)


def spaces_of(model: DiffusionModel, asked: Iterable[str | Granularity | ComponentSpace]) -> list[ComponentSpace]:
    """Return spaces as they are, and granularities on those of the model's sites that any of them covers.

    The sites of text encoders come first, as in the forward pass.
    """
    found = [make_granularity(one) if isinstance(one, str) else one for one in asked]
    gated = [one for one in found if isinstance(one, Granularity) and one.from_sites]
    kinds = {kind for each in gated for kind in each.kinds}
    sites = text_sites(model.pipe) if kinds & set(TEXT) else []
    sites += find_sites(model.denoiser, FF_IN in kinds) if gated else []
    used = [site for site in sites if any(each.covers(site.kind) for each in gated)]
    return [one.of_model(model, used) if isinstance(one, Granularity) else one for one in found]


def _own_sites(spaces: Sequence[ComponentSpace]) -> list[Site]:
    """Return the sites that have components in any of the spaces, in their order."""
    own = {site for space in spaces for site in space.sites}
    return [site for site in dict.fromkeys(site for space in spaces for site in space.all_sites) if site in own]


def estimates(
    objective: Objective, estimator: Estimator, spaces: Sequence[ComponentSpace], sites: Sequence[Site], watch: Watch
) -> dict[str, Scores]:
    """Return scores by granularity.

    sites: those whose single weights an additive estimator scores for all granularities at once.
    """
    if not (estimator.additive and all(space.of_weights for space in spaces)):
        return {space.name: estimator.estimate(Game(objective, space), watch) for space in spaces}
    singles = Weight(KINDS + OPTIONAL).on(sites)
    scores = estimator.estimate(Game(objective, singles), watch)
    places = singles.split(scores.values)
    return {space.name: replace(scores, values=space.join(places)) for space in spaces}
