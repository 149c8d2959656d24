"""The attribution: a signed score of every component, from an objective at noisy latents and an estimator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from cad_exp.pipeline.stage import NO_KEY, Chosen, Derived, Stage, Tick
from cad_exp.pipeline.stages.noisy_latents import PromptLatents
from cad_exp.pipeline.stages.question import Question
from cad_exp.utils import distributed
from cad_exp.utils.registry import HOME, TARGET, chosen

if TYPE_CHECKING:
    from cad_exp.attribution.attribute import Attribution
    from cad_exp.attribution.objectives.build import Objective
    from cad_exp.data.noisy_latents import NoisyLatents
    from cad_exp.interventions.spaces import Granularity
    from cad_exp.pipeline.runtime import Runtime

SHARED = ("kinds", "scope")  # settings of every granularity: the others are a plug-in's own


@dataclass(frozen=True, eq=False)
class Scores(Stage["Attribution"]):
    """Scores of all components of a granularity, in some kinds of module (None: its usual ones), for one question.

    every: let one estimate of an additive estimator serve all granularities. facts: noted in the file.
    """

    folder: ClassVar[str] = "attribution"
    shared: ClassVar[bool] = True
    question: Question
    latents: PromptLatents
    estimator: Chosen
    facts: dict[str, Any]
    granularity: Chosen = field(metadata=NO_KEY)  # `spaces` stands for these three
    kinds: tuple[str, ...] | None = field(metadata=NO_KEY)
    every: bool = field(default=True, metadata=NO_KEY)

    def inputs(self, runtime: Runtime) -> Any:
        """Return the fields, and which spaces are scored."""
        from cad_exp.interventions.granularity_registry import contents

        digests = contents(self.granularity.settings)  # of files, whose place does not count
        spaces = [(name, kinds, own | digests if own else own) for name, kinds, own in self.spaces()]
        return super().inputs(runtime) | {"spaces": spaces}

    def requires(self) -> None:
        """Check that the granularity's files are there, and that an estimator of somebody else's can be made."""
        from cad_exp.attribution.estimators import ESTIMATORS, make_estimator
        from cad_exp.interventions.granularity_registry import contents

        contents(self.granularity.settings)
        if ESTIMATORS.where(chosen(self.estimator.settings)).origin != HOME:  # ours need torch, and work
            make_estimator(**self.estimator.settings)

    def spaces(self) -> tuple[tuple[str, tuple[str, ...] | None, dict[str, Any]], ...]:
        """Return (name, kinds of module, own settings) of each granularity that is scored."""
        from cad_exp.attribution.estimators import ESTIMATORS
        from cad_exp.interventions.granularity_registry import OWN

        name = chosen(self.granularity.settings)
        own = {key: value for key, value in self.granularity.own.items() if key not in (*SHARED, TARGET)}
        asked = ((name, self.kinds, own),)
        if not (self.every and ESTIMATORS.of(self.estimator.settings).additive):
            return asked
        return every_space(self.kinds or ()) if name in OWN else asked

    def make(self, runtime: Runtime, folder: Path, tick: Tick) -> None:
        """Score every component, and write scores and the table of components."""
        from cad_exp.attribution.attribute import attribute
        from cad_exp.attribution.estimators import make_estimator
        from cad_exp.interventions.spaces import make_granularity

        latents, model = runtime.get(self.latents), runtime.get(self.question.model)
        spaces = [make_granularity(name, kinds, **own) for name, kinds, own in self.spaces()]
        estimator, objective = make_estimator(**self.estimator.settings), runtime.get(self.question)(latents)
        facts, unfinished = self.facts, runtime.unfinished(self)
        scored = attribute(
            model, latents, objective, estimator, spaces, meta=facts, progress=tick, checkpoint=unfinished
        )
        if distributed.main():
            scored.save(folder)

    def load(self, runtime: Runtime, folder: Path) -> Attribution:
        """Read scores and names."""
        from cad_exp.attribution.attribute import FILE, Attribution

        return Attribution.load(folder / FILE)


@dataclass(frozen=True, eq=False)
class SpaceScores(Derived["Attribution"]):
    """The scores of the asked granularity alone, in the asked kinds of module."""

    scores: Scores
    granularity: str
    kinds: tuple[str, ...] | None

    @classmethod
    def of(cls, scores: Scores) -> SpaceScores:
        """Return what these scores were made for."""
        return cls(scores, scores.granularity.name, scores.kinds)

    def derive(self, runtime: Runtime) -> Attribution:
        """Return these scores alone."""
        kinds = None if self.kinds is None else list(self.kinds)
        return runtime.get(self.scores).narrow(self.granularity, kinds)


@dataclass(frozen=True, eq=False)
class Timesteps(Stage[Path]):
    """Scores kept apart by timestep, in `bins` parts of the denoising."""

    folder: ClassVar[str] = "timesteps"
    shared: ClassVar[bool] = True
    scores: SpaceScores
    bins: int

    def make(self, runtime: Runtime, folder: Path, tick: Tick) -> None:
        """Score the components at the noisy latents of each part, and write one table."""
        from cad_exp.attribution.by_timestep import by_timestep, checkpoint_of, within
        from cad_exp.attribution.estimators import make_estimator

        whole, unfinished = self.scores.scores, runtime.unfinished(self)
        question, latents, scored = whole.question, runtime.get(whole.latents), runtime.get(self.scores)

        def objective_of(own: NoisyLatents) -> Objective:
            rows = partial(within, low=int(own.t.min()), high=int(own.t.max()))
            return runtime.get(question)(own, question.kept(runtime, rows))

        estimator, space = make_estimator(**whole.estimator.settings), scored.space(self.scores.granularity)
        table = by_timestep(objective_of, estimator, latents, space, self.bins, tick, unfinished)
        if distributed.main():
            table.to_parquet(folder / "timesteps.parquet")
            for number in range(self.bins):
                checkpoint_of(unfinished, number).unlink(missing_ok=True)

    def load(self, runtime: Runtime, folder: Path) -> Path:
        """Return the file of the table."""
        return folder / "timesteps.parquet"


def every_space(asked: Sequence[str]) -> tuple[tuple[str, tuple[str, ...] | None, dict[str, Any]], ...]:
    """Return our granularities, each with all kinds of module that it can have; optional kinds where asked for."""
    from cad_exp.interventions.spaces import GRANULARITIES, OPTIONAL, OWN

    more = [kind for kind in asked if kind in OPTIONAL]

    def kinds(space: type[Granularity]) -> tuple[str, ...]:
        return (*space.allowed_kinds, *(kind for kind in more if kind in space.optional_kinds))

    return tuple((name, kinds(GRANULARITIES.get(name)), {}) for name in OWN)
