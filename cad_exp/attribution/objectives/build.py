"""An objective of a config: its class, whether it fits the concept, and the object itself."""

from typing import Any

from cad_exp.attribution.objectives import OBJECTIVES, retained_prompts
from cad_exp.attribution.objectives.base import Objective
from cad_exp.data.noisy_latents import NoisyLatents
from cad_exp.models.pipeline import DiffusionModel, Progress
from cad_exp.utils.registry import RESERVED

__all__ = ["OBJECTIVES", "Objective", "check", "formula", "make_objective", "retained_prompts"]


def make_objective(
    name: str,
    model: DiffusionModel,
    latents: NoisyLatents,
    batch_size: int = 16,
    progress: Progress | None = None,
    context: dict[str, Any] | None = None,
    **settings: Any,
) -> Objective:
    """Make an objective: J as a function of the gates, which `attribute` takes in place of a name.

    Args:
        name: a name of OBJECTIVES. `erase` (equation 5) and `amplify` are those of CAD, arXiv 2412.02542.
        model: the model that is asked, left as it is.
        latents: the points at which it is asked. `amplify` needs those of `sample_noised`.
        batch_size: noisy latents of one pass, at least 1.
        progress: progress(done, total) counts evaluations of single noisy latents.
        context: what no config can hold. `judge` (of cad_exp.evaluation.judges) is for clip and judge. `kind` and
            `label` of the concept are for judge. `retained`, a list of NoisyLatents, one for each prompt to keep, is
            for contrast. What the objective does not take is ignored.
        settings: those of the class, as the group `objective` of a config holds them: `ablation` ("zero", "mean" or
            "resample"). `_target_`, the dotted path of a class, stands for a name.

    Returns:
        The objective. Its `value(space, gates)` is J, one number, larger where the concept is stronger.

    Raises:
        UserError: an unknown name or setting, noisy latents that do not fit, or a judge or label that is missing.

    Examples:
        >>> model = cad_exp.DiffusionModel.load("mini", device="cpu", steps=2)
        >>> latents = cad_exp.sample_trajectory(model, "church", seeds=[0], steps=2)
        >>> objective = cad_exp.make_objective("projection", model, latents, ablation="mean")
        >>> attribution = cad_exp.attribute(model, latents, objective=objective, granularities=["head"])
        >>> attribution.meta["objective"]
        'projection'
    """
    cls: type[Objective] = OBJECTIVES.of({"name": name, **settings})
    own = {key: value for key, value in settings.items() if key not in RESERVED}
    return cls.make(model, latents, batch_size, progress, context or {}, **own)


def formula(settings: dict[str, Any]) -> type[Objective]:
    """Return the class of the group `objective` of a config; of a contrast that of its parts.

    Raises UserError for unknown names.

    `formula(...).latents_kind` says which noisy latents are needed, `"judge" in formula(...).context` whether a judge
    is.
    """
    cls: type[Objective] = OBJECTIVES.of(settings)
    return cls.formula(settings)


def check(settings: dict[str, Any], concept: dict[str, Any], judge: Any = None) -> None:
    """Raise UserError if a config's objective cannot do with this concept and judge, before latents are sampled.

    settings, concept: the groups `objective` and `concept` of a config.
    """
    context = {"judge": judge, "kind": concept["kind"], "label": concept["label"]}
    OBJECTIVES.of(settings).check_settings(settings, context, retained_prompts(settings, concept))
