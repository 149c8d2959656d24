"""The config of a run with nothing left open: checked once, before any work is done. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cad_exp.config import erased_run, rules
from cad_exp.config.effective import of_task
from cad_exp.config.safety import policy
from cad_exp.config.validation import own_groups, plain, validate
from cad_exp.utils.errors import UserError

Config = dict[str, Any]
DEFAULTS = (
    "objective",
    "estimator",
    "ratio",
    "amplify_ratio",
    "factor",
    "ablation",
    "bare",
)  # of a concept, mostly by granularity


class Resolved(dict[str, Any]):
    """A config that `resolve` made: nothing is left open, nothing is checked again."""


def resolve(config: Config, folders: Sequence[Path] = ()) -> Resolved:
    """Return a copy of the composed config in which defaults that depend on others are filled in.

    folders: further ones with configs (`--config-dir`), whose options `model.erased` may name.
    Raises UserError, with the key, for the first setting that is wrong. What is resolved already is returned as it is.
    """
    if isinstance(config, Resolved):
        return config
    given = {key: value for key, value in config.items() if key != "study"}  # a table is none of the run's business
    rules.check_before_types(given)
    checked = validate(given, folders)
    own = own_groups(given, folders)
    resolved = {key: value if key in own else plain(getattr(checked, key), value) for key, value in given.items()}
    return Resolved(_filled(resolved, folders))


def _filled(config: Config, folders: Sequence[Path]) -> Config:
    """Fill in the open defaults of the checked config, and check the rules between settings."""
    if config["task"]["name"] != "attribute":
        config = of_task(config)
        if "sae" in config:
            rules.check_sae(config["sae"])
        return _without_edit(config)
    config = of_task(config)
    config["model"]["erased"] = _erased(config, folders)
    concept, edit = config["concept"], config["edit"]
    if edit.get("bare_prompt"):  # the public CAD code's: the concept's name, with no person to keep beside it
        concept |= concept.get("bare") or {}
    rules.check_concept(concept, config["granularity"]["name"])
    # What the option says of its method is no setting of the run.
    scored, own = edit.pop("needs_scores", True), edit.pop("scored_by", None)
    if not scored:
        rules.check_without_scores(edit)
        _without_scores(config)
    else:
        _fill_scores(config)
        rules.check_own_scores(edit["name"], own, config["estimator"]["name"])
        rules.check_ablation(edit, config["granularity"]["name"])
        rules.check_granularity(config["granularity"], edit, config["estimator"])
        rules.check_estimator(config["estimator"])
        rules.check_patching(config["estimator"], config["objective"])
        rules.check_objective(config["objective"], concept)
        rules.check_timesteps(config["evaluation"]["timesteps"], config["noisy_latents"], config["objective"]["name"])
    rules.check_edit(edit)
    if edit.get("strength") == "auto":
        concept["validation_prompts"] = concept.get("validation_prompts") or concept["evaluation_prompts"]
    else:
        concept.pop("validation_prompts", None)
    for group in ("prompts", "retention_prompts"):
        rules.check_columns(config[group], group)
    _choose_judge(config)
    # What only stood for values left open is no part of the run: other defaults tomorrow must not hide its results.
    config["model"].pop("erasure_methods", None)
    config["concept"] = {key: value for key, value in concept.items() if key not in DEFAULTS}
    config["evaluation"]["higher_concept_is_better"] = edit["sign"] == "negative"
    policy.check(config)
    return config


def _without_edit(config: Config) -> Config:
    """Check and complete the config of a task that edits nothing."""
    if config["model"]["erased"]:
        raise UserError(
            f"task={config['task']['name']} erases nothing itself: give the edit of another run as model.edits=[FILE]"
        )
    config["model"] = {key: value for key, value in config["model"].items() if key not in ("judge", "erasure_methods")}
    return config


def _erased(config: Config, folders: Sequence[Path]) -> Config | None:
    """Replace the overrides of `model.erased` by what they come to, as far as the erasing edit depends on it."""
    if not config["model"]["erased"]:
        return None
    first = erased_run.composed(config, folders)
    try:
        first = resolve(first, folders)
    except UserError as error:
        raise UserError(f"model.erased: {error}") from error
    return {group: first[group] for group in ("concept", *erased_run.FREE)}


def _fill_scores(config: Config) -> None:
    """Fill in objective, estimator, ratio and factor, where they are left to the concept."""
    concept, granularity, edit = config["concept"], config["granularity"]["name"], config["edit"]
    amplifies = edit["name"] == "amplify"
    if config["objective"]["name"] == "auto":
        config["objective"]["name"] = "amplify" if amplifies else concept["objective"][granularity]
    if config["estimator"]["name"] == "auto":
        chosen = "first_order" if amplifies else concept["estimator"]
        # The settings that the config holds are those of ablated_gradients; first_order has none.
        config["estimator"] = {"name": chosen} if chosen == "first_order" else config["estimator"] | {"name": chosen}
    if {"strengths", "beyond"} & set(edit):
        rules.check_strength(edit)
        rules.check_instead(edit, concept)
        rules.check_kept(edit, concept)
        _drop_unused_strengths(edit)
    if edit["name"] == "none" or "beyond" in edit:  # the latter finds every factor itself
        edit |= {"ratio": None, "count": None, "factor": None}
        return
    removes = edit["sign"] != "negative"
    if "ablation" in edit and edit["ablation"] is None:
        edit["ablation"] = concept["ablation"].get(granularity, "scale") if removes else "scale"
    if edit["ratio"] is None and edit["count"] is None and edit.get("strength") != "auto":
        edit["ratio"] = concept["amplify_ratio"] if amplifies else concept["ratio"][granularity]
    if edit["factor"] is None:
        edit["factor"] = concept["factor"][granularity] if removes else 0.0


def _drop_unused_strengths(edit: Config) -> None:
    """Leave out how a strength would be chosen where it is given: other wishes are no other run then."""
    if edit["strength"] == "auto":
        return
    for key in (*rules.WALK, *(() if "beyond" in edit else ("strength",))):
        edit.pop(key)


def _without_scores(config: Config) -> None:
    """Name `none` what a method without scores does not use, so that no result claims it."""
    config |= {group: {"name": "none"} for group in ("objective", "estimator")}
    config["granularity"] = {"name": "none", "kinds": [], "scope": None}
    config["evaluation"] |= {"fidelity": None, "timesteps": None}
    config["edit"]["scope"] = None


def _choose_judge(config: Config) -> None:
    """Choose who judges: the group's choice, else the model's own (`model.judge`), and write it into the config."""
    judge, own = config["judge"], config["model"]["judge"]
    # With judge=auto the group holds the settings of the published judges, which mean nothing to others.
    auto = judge["name"] == "auto"
    name = own if auto else judge["name"]
    name = None if name == "none" else name
    config["judge"] = {"name": name} if name is None or (auto and name != "real") else judge | {"name": name}
    config["model"]["judge"] = config["judge"]["name"]
