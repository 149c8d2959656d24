"""Granularities by name: what one component is. Nothing here imports torch."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cad_exp.utils.errors import UserError
from cad_exp.utils.hashing import folder_digest
from cad_exp.utils.paths import resolve
from cad_exp.utils.registry import Entry, Registry, chosen

_HOME = "cad_exp.interventions.spaces.granularities"
_LATENTS = "cad_exp.representations.latents"
_MAKE = "`python -m cad_exp task=sae \"tokens.hookpoints=['*.attn2']\" hydra.run.dir=outputs/latents`"
OWN = ("weight", "neuron", "head", "layer")  # of this package; one estimate of an additive estimator serves all four
FILES = "files"  # a class's settings that are folders, whose content counts

GRANULARITIES = Registry(
    "granularity",
    {name: f"{_HOME}:{name.title()}" for name in OWN}
    | {
        "latent": Entry(f"{_LATENTS}:Latent", facts={FILES: ("autoencoders",)}),
        "principal": Entry(f"{_LATENTS}:Principal", facts={FILES: ("autoencoders",)}),
        "mean_difference": Entry("cad_exp.representations.mean_differences:MeanDifference", facts={FILES: ()}),
    },
    {FILES: ()},
)
"""Every granularity by name. `make_granularity` makes one."""


def contents(settings: Mapping[str, Any]) -> dict[str, str]:
    """Return the digest of every folder that a granularity's settings name, by its key.

    Raises:
        UserError: there is no such folder.
    """
    found: dict[str, str] = {}
    if settings["name"] == "none":  # a method that needs no scores
        return found
    for key in GRANULARITIES.fact(chosen(settings), FILES):
        folder = resolve(str(settings[key]))
        if not Path(folder).is_dir():
            raise UserError(f"granularity.{key}: there is no folder '{settings[key]}': make it by {_MAKE}")
        found[key] = folder_digest(folder)
    return found
