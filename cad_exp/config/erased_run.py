"""`model.erased`: the run that erases a run's model first, made of overrides. No torch: all is checked before any work.

A run without the key needs no Hydra.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cad_exp.utils.errors import UserError, choose

Config = dict[str, Any]
FREE = ("granularity", "noisy_latents", "objective", "estimator", "edit")  # groups that the overrides may change
SHARED = ("concept", "model", "judge", "seed", "runtime")  # the erasing run's are those of the run itself
UNUSED = (
    "prompts",
    "retention_prompts",
    "evaluation",
    "tracking",
)  # it makes no images, so that these would say nothing


def composed(config: Config, folders: Sequence[Path] = ()) -> Config:
    """Compose the config, not resolved yet, of the run that erases the model of `config`, itself not resolved either.

    folders: further ones with configs. Raises UserError that names model.erased for wrong overrides.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser

    from cad_exp.config import options
    from cad_exp.config.compose import hydra

    overrides = config["model"]["erased"]
    if not isinstance(overrides, list) or not all(isinstance(item, str) for item in overrides):
        raise UserError(
            "model.erased must be a list of overrides, each in quotes: model.erased=['edit=uce','edit.tokens=all']"
        )
    for item in overrides:
        _check(item)
    shared = {group: copy.deepcopy(config[group]) for group in SHARED if group in config}
    shared["model"]["erased"] = None
    try:
        with hydra([options.conf_folder(), *folders]) as composer:
            parsed = OverridesParser.create().parse_overrides(overrides)
            if several := [item.input_line for item in parsed if item.is_sweep_override()]:
                raise UserError(
                    f"'{several[0]}' is several edits: with -m, give several lists: model.erased=[...],[...]"
                )
            found = composer.job([*overrides, "evaluation=none"], shared)
    except UserError as error:
        raise UserError(f"model.erased: {error}") from error
    if found["edit"]["name"] == "none":
        raise UserError("model.erased: edit=none erases nothing: leave model.erased out, or name another edit")
    return found


def _check(override: str) -> None:
    """Raise UserError, with the reason, for an override that an erasing run does not take."""
    key = override.partition("=")[0].lstrip("+~")
    group = key.partition(".")[0]
    if key == "model.erased":
        raise UserError("model.erased cannot hold another model.erased: save the first edit and give it as model.edits")
    if group in SHARED:
        raise UserError(f"model.erased cannot hold '{override}': the model is erased for this run's own {group}")
    if group in UNUSED:
        raise UserError(f"model.erased cannot hold '{override}': no images are made of it, so it would change nothing")
    choose(group, FREE, "setting in model.erased")
