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
"""Every method by name. `make_edit` makes the edit of one that chooses components by scores."""
# What the group `edit` holds for every edit; the rest is the method's own.
_BUDGET = ("sign", "factor", "ratio", "count", "scope", "rounding", "ablation", "bare_prompt")
_WALK = ("strength", "strengths", "erase", "keep", "samples", "confirm", "retention_samples")
_COMMON = ("name", TARGET, *_BUDGET)


def own_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """Return what the group `edit` of a config holds for its method alone."""
    common = (*_COMMON, *(_WALK if "strengths" in settings else ()))
    return {key: value for key, value in settings.items() if key not in common}


def needs_scores(settings: dict[str, Any]) -> bool:
    """Return whether the method of the group `edit` is of scored components; ours are not loaded for that."""
    facts = METHODS.where(chosen(settings)).facts
    return bool(facts["scored"]) if facts else hasattr(METHODS.of(settings), "select") or finds_gates(settings)


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
    """Make the edit of a method that chooses components by scores.

    `amplify` takes the lowest scores, `random` as many components as `erase`, and `none` no component. The others of
    this package take the highest scores, as `select` does. They differ in whose scores the attribution has to hold:
    for `conceptprune` those of the estimator `wanda` (arXiv 2405.19237), for `salun_mask` of `saliency` (2310.12508),
    for `saeuron` of `activation_difference` (2501.18052, equation 4). CAD, arXiv 2412.02542, is `erase` and `amplify`.

    Args:
        name: a name of METHODS, such as "erase".
        attribution: the scores, (n,) for each granularity; what `attribute` returns.
        granularity: which of them, such as "neuron".
        ratio: share of the components in every group of the scope, in (0, 1]; None where `count` is given.
        count: number of components over the whole model, at least 1, with the scope "global"; None with `ratio`.
        scope: the groups in which the ratio holds: "global" or "layer"; for weights also "row".
        factor: what the chosen ones are multiplied by: 0 switches them off, -1 reverses them.
        kinds: kinds of site that take part, such as ["cross-attention"]; None takes all that were scored.
        seed: of the method `random`.
        rounding: of ratio times group size, "ceil" or "floor".
        own: settings of the method alone. `_target_`, the dotted path of a class, stands for a name.

    Returns:
        The edit. Its `meta` holds the method, and how many components were `requested` and `achieved`.

    Raises:
        UserError: an unknown name, a method that does not choose by scores, a value out of its range, or an edit that
            would change nothing.

    Examples:
        >>> model = cad_exp.DiffusionModel.load("mini", device="cpu", steps=2)
        >>> latents = cad_exp.sample_trajectory(model, "church", seeds=[0], steps=2)
        >>> attribution = cad_exp.attribute(model, latents, granularities=["head"])
        >>> edit = cad_exp.make_edit("amplify", attribution, "head", count=3)
        >>> edit.meta["edit"], edit.meta["achieved"]
        ('amplify', 3)
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
