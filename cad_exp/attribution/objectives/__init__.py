"""What counts as showing the concept: J as a differentiable function of the gates."""

from collections.abc import Mapping
from typing import Any

from cad_exp.config.own_prompts import kept
from cad_exp.utils.registry import Entry, Registry, chosen

_USUAL = {"asks": (), "latents_kind": "trajectory", "parts": None}  # see the attributes of objectives.base.Objective
OBJECTIVES = Registry(
    "objective",
    {
        "erase": "cad_exp.attribution.objectives.noise:Erase",
        "amplify": Entry("cad_exp.attribution.objectives.noise:Amplify", facts=_USUAL | {"latents_kind": "noised"}),
        "projection": "cad_exp.attribution.objectives.noise:Projection",
        "guidance_norm": "cad_exp.attribution.objectives.noise:GuidanceNorm",
        "clip": Entry("cad_exp.attribution.objectives.image:ClipSimilarity", facts=_USUAL | {"asks": ("clip",)}),
        "judge": Entry("cad_exp.attribution.objectives.image:JudgeLogit", facts=_USUAL | {"asks": ("logits",)}),
        "contrast": Entry(
            "cad_exp.attribution.objectives.contrast:Contrast", facts=_USUAL | {"parts": ("of", "projection")}
        ),
    },
    usual=_USUAL,
)
"""Every objective by name. `make_objective` makes one; the docstring of its class has its formula."""


def formula_name(settings: Mapping[str, Any]) -> str:
    """Return the objective whose formula counts: of one that is made of others, that of its parts.

    settings: the group `objective` of a config. Nothing is loaded for objectives of this package.
    """
    name = chosen(settings)
    parts = OBJECTIVES.fact(name, "parts")
    return str(settings.get(*parts)) if parts else name


def retained_prompts(settings: dict[str, Any], concept: dict[str, Any]) -> list[str]:
    """Return the prompts of `objective.retain` but for those that ask for the concept itself.

    settings, concept: the groups `objective` and `concept` of a config.
    """
    return kept(settings.get("retain") or [], concept)
