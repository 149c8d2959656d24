"""The part of a config that can change a number, and how two configs differ."""

import json
from typing import Any

from cad_exp.utils.hashing import digest

# Whole groups, or single keys, that cannot change a number. `study` says how an experiment's table looks.
_NO_EFFECT = {"tracking": None, "runtime": ("cache", "checkpointing", "offload"), "study": None}

# Settings that make a run leave more to look at, and no other number: its results answer the same question.
_SHOWN = {"evaluation": ("counterfactuals",)}

# Groups that not every task uses, by task; all others belong to every task.
_OWN = {
    "attribute": ("concept", "granularity", "noisy_latents", "objective", "estimator", "edit", "prompts")
    + ("retention_prompts", "evaluation", "judge"),
    "probe": ("images", "activations", "probe"),
    "sae": ("images", "tokens", "sae"),
    "analyse": ("images", "activations", "analysis"),
}


def of_task(config: dict[str, Any]) -> dict[str, Any]:
    """Return a config without the groups that only other tasks use."""
    task = config.get("task")
    name = task.get("name") if isinstance(task, dict) else None
    foreign = {group for groups in _OWN.values() for group in groups}.difference(_OWN.get(name or "attribute", ()))
    return {key: value for key, value in config.items() if key not in foreign}


def effective(config: dict[str, Any]) -> dict[str, Any]:
    """Return the part of a config that can change a number."""
    kept = {}
    for group, value in of_task(config).items():
        ignored = _NO_EFFECT.get(group, ())
        if ignored is None:
            continue
        kept[group] = {k: v for k, v in value.items() if k not in ignored} if isinstance(value, dict) else value
    return kept


def differences(old: object, new: object, key: str = "", common: bool = False) -> list[tuple[str, str, str]]:
    """Return (dotted key, old value, new value) of what differs, as JSON. common: only of keys that both have."""
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return [] if old == new else [(key, json.dumps(old), json.dumps(new))]
    names = [name for name in dict.fromkeys([*old, *new]) if not common or (name in old and name in new)]
    return [
        row
        for name in names
        for row in differences(old.get(name), new.get(name), f"{key}.{name}" if key else name, common)
    ]


def asked(config: dict[str, Any]) -> str:
    """Hash of what a resolved config asks for, wherever it runs: results of several machines belong to one question."""
    kept = effective(config)
    for group, names in _SHOWN.items():
        if isinstance(kept.get(group), dict):
            kept[group] = {key: value for key, value in kept[group].items() if key not in names}
    place = kept.get("runtime")
    where = {"runtime": [place.get("precision"), place.get("score")]} if isinstance(place, dict) else {}
    return digest(_whole(kept | where))


def _whole(value: Any) -> Any:
    """Return numbers as they count: -1.0 becomes -1."""
    if isinstance(value, dict):
        return {key: _whole(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_whole(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def changes_numbers(override: str) -> bool:
    """Return whether what an override changes can change a number."""
    group, _, key = override.partition("=")[0].lstrip("+~").partition(".")
    ignored = _NO_EFFECT.get(group, ())
    return ignored is not None and key not in ignored
