"""Objectives: the formulas for J that there are, each by its name."""

from typing import Any

from torch import Tensor

from cad_exp.attribution.objectives.base import Objective, Predict
from cad_exp.attribution.objectives.contrast import Contrast
from cad_exp.attribution.objectives.image import ClipSimilarity, JudgeLogit
from cad_exp.data.noisy_latents import Probes
from cad_exp.models.pipeline import DiffusionModel, Progress
from cad_exp.utils.errors import UserError, choose

__all__ = ["OBJECTIVES", "Objective", "check", "formula", "make_objective", "retained_prompts"]


class Erase(Objective):
    """CAD-Erase: J = E || eps(x_t, c, t; w) - stopgrad(eps(x_t, base, t)) ||^2, the mean over dimensions."""

    name, needs, flat_at_base = "erase", ("base",), True

    def loss(self, batch: Probes, predict: Predict) -> Tensor:
        return (predict(batch, self.concept) - batch.base).square().flatten(1).mean(1)


class Amplify(Objective):
    """CAD-Amplify: J = -E || target - eps(x_t, c, t; w) ||^2, the negative denoising loss on images of the concept."""

    name, probes_kind, needs = "amplify", "noised", ("target",)

    def loss(self, batch: Probes, predict: Predict) -> Tensor:
        return -(predict(batch, self.concept) - batch.target).square().flatten(1).mean(1)


class Projection(Objective):
    """J = E <eps(x, c; w) - eps(x, base; w), d> / |d|^2, d = the intact model's guidance direction at the probe.

    1 for the intact model, 0 when nothing of the concept's direction is left.
    """

    name, needs = "projection", ("base", "cond")

    def loss(self, batch: Probes, predict: Predict) -> Tensor:
        direction = (batch.cond - batch.base).flatten(1)
        change = (predict(batch, self.concept) - predict(batch, self.neutral)).flatten(1)
        # A probe where the prompts agree (d = 0) has no direction to lose; the floor makes it count 0 and not NaN.
        return (change * direction).sum(1) / direction.square().sum(1).clamp_min(1e-12)


class GuidanceNorm(Objective):
    """J = E || eps(x, c; w) - eps(x, base; w) ||^2, the mean over dimensions: the edited model's own guidance.

    Whatever its direction: both predictions are the edited model's, nothing is held fixed.
    """

    name, flat_at_base = "guidance_norm", True

    def loss(self, batch: Probes, predict: Predict) -> Tensor:
        return (predict(batch, self.concept) - predict(batch, self.neutral)).square().flatten(1).mean(1)


SIMPLE = {cls.name: cls for cls in (Erase, Amplify, Projection, GuidanceNorm, ClipSimilarity, JudgeLogit)}
OBJECTIVES: dict[str, type[Objective]] = SIMPLE | {Contrast.name: Contrast}


def make_objective(
    name: str,
    model: DiffusionModel,
    probes: Probes,
    batch_size: int = 16,
    progress: Progress | None = None,
    context: dict[str, Any] | None = None,
    **settings: Any,
) -> Objective:
    """An objective by name (`erase`, `projection`, ...) with the settings of its config.

    context: what no config of an objective can hold: `judge` (of cad_exp.evaluation.judges) for clip and judge, `kind`
    and `label` of the concept for judge, `retained` (a list of Probes, one for each prompt to retain) for contrast;
    what it does not take is ignored. Raises UserError for an unknown name, unfit probes, a missing judge or label.
    """
    cls, context = OBJECTIVES[choose(name, OBJECTIVES, "objective")], context or {}
    if cls is Contrast:
        return _contrast(model, probes, batch_size, progress, context, **settings)
    given = {key: context[key] for key in cls.context if key in context}
    return cls(model, probes, batch_size, progress, **given, **settings)


def _contrast(
    model: DiffusionModel,
    probes: Probes,
    batch_size: int,
    progress: Progress | None,
    context: dict[str, Any],
    of: str = "projection",
    weight: float | list[float] = 1.0,
    retain: list[str] | None = None,
    base_prompt: str = "",
    **settings: Any,
) -> Contrast:
    """One objective `of` for the concept's probes and one for each of the retained probes.

    retain and base_prompt say which probes the stages sample; here the probes themselves count.
    """
    choose(of, SIMPLE, "objective in objective.of")
    concept = make_objective(of, model, probes, batch_size, progress, context, **settings)
    others = []
    for kept in context.get("retained") or ():
        own = dict(context)
        if SIMPLE[of] is JudgeLogit:
            own["kind"], own["label"] = context["judge"].question(kept.prompt)
        others.append(make_objective(of, model, kept, batch_size, None, own, **settings))
    return Contrast(concept, others, weight)


def retained_prompts(settings: dict[str, Any], concept: dict[str, Any]) -> list[str]:
    """The prompts of `objective.retain` but for those that ask for the concept itself; none where nothing is retained.

    settings, concept: the groups `objective` and `concept` of a config.
    """
    own = (concept["prompt"], *concept["evaluation_prompts"])
    return [prompt for prompt in settings.get("retain") or [] if prompt not in own]


def formula(settings: dict[str, Any]) -> type[Objective]:
    """The class of the group `objective` of a config; of a contrast that of its parts. UserError for unknown names.

    `formula(...).probes_kind` says which probes are needed, `"judge" in formula(...).context` whether a judge is.
    """
    name = choose(settings["name"], OBJECTIVES, "objective")
    if name != Contrast.name:
        return SIMPLE[name]
    return SIMPLE[choose(settings.get("of", "projection"), SIMPLE, "objective in objective.of")]


def check(settings: dict[str, Any], concept: dict[str, Any], judge: Any = None) -> None:
    """Raises UserError if a config's objective cannot do with this concept and judge, before probes are sampled.

    settings, concept: the groups `objective` and `concept` of a config.
    """
    cls = formula(settings)
    cls.check({"judge": judge, "kind": concept["kind"], "label": concept["label"]})
    if settings["name"] == Contrast.name:
        prompts = retained_prompts(settings, concept)
        if not prompts:
            raise UserError("objective contrast needs something to keep: give objective.retain=[PROMPT, ...]")
        for prompt in prompts if cls is JudgeLogit else ():
            judge.question(prompt)
