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
    """Make an objective by name (`erase`, `projection`, ...), or by `_target_`, with the settings of its config.

    context: what no config of an objective can hold: `judge` (of cad_exp.evaluation.judges) for clip and judge, `kind`
    and `label` of the concept for judge, `retained` (a list of NoisyLatents, one for each prompt to retain) for
    contrast; what it does not take is ignored. Raises UserError for an unknown name, unfit noisy latents, a missing
    judge or label.
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
