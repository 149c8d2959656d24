"""Families of text-to-image models, each found by the classes of a pipeline's components, never by a name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cad_exp.utils.errors import UserError
from cad_exp.utils.registry import Registry

if TYPE_CHECKING:
    from cad_exp.models.families.base import Family

FAMILIES = Registry(
    "family",
    {
        "stable_diffusion": "cad_exp.models.families.stable_diffusion:StableDiffusion",
        "stable_diffusion_xl": "cad_exp.models.families.stable_diffusion_xl:StableDiffusionXL",
        "stable_diffusion_3": "cad_exp.models.families.stable_diffusion_3:StableDiffusion3",
        "pixart": "cad_exp.models.families.pixart:PixArt",
        "flux": "cad_exp.models.families.flux:Flux",
    },
)


def make_family(pipe: Any, name: str, guidance: float) -> Family:
    """Make the family of a pipeline: the first that it fits, ours before those of installed packages.

    Raises UserError that lists what there is if it belongs to none, and names a package whose family is broken. A
    pipeline for another task (image to image, inpainting) whose components are a family's own gives its
    text-to-image pipeline: the family's `pipe`.
    """
    titles, broken = [], ""
    for known in FAMILIES:
        try:
            family: type[Family] = FAMILIES.get(known)
        except UserError as error:  # a package's: the model may be another family's
            broken = f" ({error})"
            continue
        if family.fits(pipe):
            return family(family.text_to_image(pipe), name, guidance)
        titles.append(family.title)
    raise UserError(
        f"'{name}' is of a kind that is not supported: give a text-to-image model of {', '.join(titles)}{broken}"
    )
