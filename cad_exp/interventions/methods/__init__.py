"""Methods: what an edit does to a model. There are four kinds, told apart by what the registered object has.

`select(attribution, granularity, seed, budget, **settings)` chooses components by their scores. `gates(task, strength,
seed, start, progress, **settings)` finds the gates of all components at once (`attribution.gates`).
Everything else is called with the model and its own settings, as a function or by its `edit(model, **settings)`, and
gives an Edit that replaces weights. With `hooks(network, steering, **settings)`, a context manager, it acts while the
model runs instead: the Edit brings it tensors (`steering`).
"""

from __future__ import annotations

from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cad_exp.utils.errors import UserError
from cad_exp.utils.registry import TARGET, Entry, Registry, chosen, fitting

if TYPE_CHECKING:
    from cad_exp.interventions.edit import Edit
    from cad_exp.interventions.selection import Scored
    from cad_exp.models.pipeline import DiffusionModel, Progress

_SCORED = {"scored": True, "gates": False}  # see `needs_scores` and `finds_gates`
METHODS = Registry(
    "method",
    {
        **{
            name: Entry(f"cad_exp.interventions.methods.choosing:{cls}", facts=_SCORED)
            for name, cls in {
                "erase": "Erase",
                "amplify": "Amplify",
                "none": "Nothing",
                "random": "Random",
                "magnitude": "Erase",
                "conceptprune": "Erase",
                "salun_mask": "Erase",
                "saeuron": "Erase",
                "cad_public": "Erase",
            }.items()
        },
        **{
            name: Entry(f"cad_exp.attribution.gates.{name}:{cls}", facts=_SCORED | {"gates": True})
            for name, cls in {"joint": "Joint", "hard_concrete": "HardConcrete", "greedy": "Greedy"}.items()
        },
        "uce": "cad_exp.interventions.methods.uce:uce",
        "rece": "cad_exp.interventions.methods.rece:rece",
        "esd": "cad_exp.interventions.methods.esd:esd",
        "checkpoint": "cad_exp.interventions.methods.published:published",
    },
    usual={"scored": False, "gates": False},
)
# What the group `edit` holds for every edit; the rest is the method's own.
_BUDGET = ("sign", "factor", "ratio", "count", "scope", "rounding", "ablation", "bare_prompt")
_WALK = ("strength", "strengths", "erase", "keep", "samples", "confirm", "retention_samples")
_COMMON = ("name", TARGET, *_BUDGET)


def own_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """Return what the group `edit` of a config holds for its method alone."""
    common = (*_COMMON, *(_WALK if "strengths" in settings else ()))
    return {key: value for key, value in settings.items() if key not in common}


def needs_scores(settings: dict[str, Any]) -> bool:
    """Return whether the method of the group `edit` chooses components by scores; ours are not loaded for that."""
    facts = METHODS.where(chosen(settings)).facts
    return bool(facts["scored"]) if facts else hasattr(METHODS.of(settings), "select")


def finds_gates(settings: dict[str, Any]) -> bool:
    """Return whether the method of the group `edit` finds the gates of all components at once."""
    facts = METHODS.where(chosen(settings)).facts
    return bool(facts["gates"]) if facts else hasattr(METHODS.of(settings), "gates")


def make_edit(
    name: str,
    attribution: Scored,
    granularity: str,
    ratio: float | None = None,
    count: int | None = None,
    scope: str = "global",
    factor: float = 0.0,
    kinds: Any = None,
    seed: int = 0,
    rounding: str = "ceil",
    **own: Any,
) -> Edit:
    """Make the edit of a method that chooses components by scores: its name, or `_target_`, and its budget.

    `amplify` takes negative components, `random` as many as `erase`, `none` none, the others of this package positive
    ones: what differs between those is whose scores the attribution holds. UserError for a method of another kind.
    """
    method = METHODS.of({"name": name, **own})
    if not hasattr(method, "select"):
        raise UserError(f"edit {name} chooses no components by scores: give its whole config, with edit={name}")
    budget = {"ratio": ratio, "count": count, "scope": scope, "factor": factor, "kinds": kinds, "rounding": rounding}
    settings = fitting(method.select, own_settings(own), f"edit {name}", 4)
    edit: Edit = method.select(attribution, granularity, seed, budget, **settings)
    edit.meta["edit"] = name
    return edit


def replace_weights(
    settings: dict[str, Any], model: DiffusionModel, draft: Path | None = None, progress: Progress | None = None
) -> Edit:
    """Make the edit of a method that needs no scores; `settings` is the group `edit` of a config.

    draft: a file in which one that trains keeps what it has finished, and from which it goes on; None: nowhere.
    progress(done, total) counts its steps. UserError for settings that it does not take, or a model that it is not for.
    """
    method, own = METHODS.of(settings), own_settings(settings)
    make = getattr(method, "edit", method)
    edit: Edit = make(model, **fitting(make, own, f"edit {settings['name']}", 1), **_offered(make, draft, progress))
    old = {parameter: model.denoiser.get_parameter(parameter).detach().cpu() for parameter in edit.replaced}
    if edit.steering:
        edit.meta["acts"] = chosen(settings)
    edit.meta |= {
        "edit": settings["name"],
        "settings": own,
        "model": model.name,
        "fingerprint": model.fingerprint(),
        "matrices": len(edit.replaced),
        "weights": sum(value.numel() for value in edit.replaced.values()),
        "changed": sum(int((value != old[parameter]).sum()) for parameter, value in edit.replaced.items()),
    }
    return edit


def _offered(make: Any, draft: Path | None, progress: Progress | None) -> dict[str, Any]:
    """Return those of the draft file and the progress that a method takes."""
    offered = {"draft": draft, "progress": progress}
    return {key: value for key, value in offered.items() if key in signature(make).parameters}
