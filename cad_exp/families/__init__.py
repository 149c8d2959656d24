"""Families of text-to-image models, each found by the classes of a pipeline's components, never by a name."""

from typing import Any

from cad_exp.errors import UserError
from cad_exp.families.base import Family
from cad_exp.families.condition import Condition
from cad_exp.families.flux import Flux
from cad_exp.families.pixart import PixArt
from cad_exp.families.stable_diffusion import StableDiffusion
from cad_exp.families.stable_diffusion_3 import StableDiffusion3
from cad_exp.families.stable_diffusion_xl import StableDiffusionXL

__all__ = ["FAMILIES", "Condition", "Family", "left_out", "make_family"]

FAMILIES = (StableDiffusion, StableDiffusionXL, StableDiffusion3, PixArt, Flux)


def left_out(index: dict[str, Any]) -> dict[str, Any]:
    """What `from_pretrained` must be told of a pipeline whose model_index.json is given: which parts it goes without.

    The safety checker, which would blacken images that are to be judged; T5, where a Stable Diffusion 3 has none.
    """
    if index.get("_class_name") == "StableDiffusion3Pipeline":
        third = ("text_encoder_3", "tokenizer_3")
        return {name: None for name in third if index.get(name) in (None, [None, None])}
    return {"safety_checker": None, "requires_safety_checker": False} if "safety_checker" in index else {}


def make_family(pipe: Any, name: str, guidance: float) -> Family:
    """The family of a pipeline. UserError that lists what there is if it belongs to none."""
    for family in FAMILIES:
        if family.fits(pipe):
            return family(pipe, name, guidance)
    known = ", ".join(family.title for family in FAMILIES)
    raise UserError(
        f"'{name}' is a {type(pipe).__name__}, which is not supported: give a text-to-image model of {known}"
    )
