"""Families of text-to-image models, each found by the classes of a pipeline's components, never by a name."""

from typing import Any

from cad_exp.models.families.base import Family
from cad_exp.models.families.condition import Condition
from cad_exp.models.families.flux import Flux
from cad_exp.models.families.pixart import PixArt
from cad_exp.models.families.stable_diffusion import StableDiffusion
from cad_exp.models.families.stable_diffusion_3 import StableDiffusion3
from cad_exp.models.families.stable_diffusion_xl import StableDiffusionXL
from cad_exp.utils.errors import UserError

__all__ = ["FAMILIES", "Condition", "Family", "make_family"]

FAMILIES = (StableDiffusion, StableDiffusionXL, StableDiffusion3, PixArt, Flux)


def make_family(pipe: Any, name: str, guidance: float) -> Family:
    """The family of a pipeline. UserError that lists what there is if it belongs to none.

    A pipeline for another task (image to image, inpainting) whose components are a family's own gives its
    text-to-image pipeline: the family's `pipe`.
    """
    for family in FAMILIES:
        if family.fits(pipe):
            return family(family.text_to_image(pipe), name, guidance)
    known = ", ".join(family.title for family in FAMILIES)
    raise UserError(
        f"'{name}' is a {type(pipe).__name__}, which is not supported: give a text-to-image model of {known}"
    )
