"""Whether a composed config has all that a run reads: an option of the user's own may lack what ours define.

What an option must have is what the shipped one that stands for its group has.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from cad_exp.config import options
from cad_exp.utils.errors import UserError, choose

# The option with the fewest keys of each group that a run reads, and for concepts with what they all share.
SMALLEST = {"model": "local", "concept": "custom", "granularity": "neuron", "probes": "default", "edit": "none"}
SMALLEST |= {"evaluation": "none", "tracking": "disabled", "runtime": "default"}
NAMED = ("objective", "estimator", "prompts", "others", "judge")  # groups whose options share only a name


def check(config: dict[str, Any], folders: Sequence[Path] = ()) -> None:
    """UserError for the first group or setting that a run needs and this composed config lacks.

    folders: the user's own, in which options lie.
    """
    if "seed" not in config:
        raise UserError("seed is missing: leave out ~seed, or give seed=0")
    for group in (*SMALLEST, *NAMED):
        own = config.get(group)
        if not isinstance(own, dict):
            known = ", ".join(options.options(group, [options.conf_folder(), *folders]))
            raise UserError(f"{group}={own} is no option of this group: choose one of {known}")
        for key in _keys(group, SMALLEST[group]) if group in SMALLEST else ("name",):
            if key not in own:
                raise UserError(_lacks(group, key, own))
    concept, granularity = config["concept"], config["granularity"]["name"]
    choose(granularity, options.options("granularity", [options.conf_folder()]), "granularity")
    for key in ("ratio", "factor", "objective"):
        if not isinstance(concept[key], dict) or granularity not in concept[key]:
            raise UserError(
                f"concept.{key} has no value for {granularity}: add {key}: {{{granularity}: ...}} to its file"
            )


def _lacks(group: str, key: str, own: dict[str, Any]) -> str:
    """What to add where a key is missing."""
    file = f"the file of {group}={own['name']}" if "name" in own else f"its file in {group}/"
    told = f"{group}.{key} is missing: add '{key}: ...' to {file}, or leave out ~{group}.{key}"
    if group == "concept" and key in _keys("concept", "_edit"):
        return f"{told} ('defaults: [_edit, _self_]' gives a concept all that it needs for edits)"
    return told


@cache
def _keys(group: str, option: str) -> tuple[str, ...]:
    """The keys of a shipped option, with those of the options of its group that it is made of."""
    import yaml

    content = yaml.safe_load((options.conf_folder() / group / f"{option}.yaml").read_text(encoding="utf-8"))
    parts = [name for name in content.pop("defaults", []) if isinstance(name, str) and name != "_self_"]
    return tuple(dict.fromkeys([*content, *(key for part in parts for key in _keys(group, part))]))
