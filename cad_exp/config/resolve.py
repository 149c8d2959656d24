"""The config of a run with nothing left open, checked before any work is done."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cad_exp.config import erasing, listed
from cad_exp.config.checks import check_concept, check_edit
from cad_exp.config.names import check_name
from cad_exp.config.safety import policy
from cad_exp.utils.errors import UserError
from cad_exp.utils.paths import find_file

Config = dict[str, Any]
RESAMPLES = 40  # of a bootstrap, at least: then one of them lies beyond the 2.5th percentile
SEEN = ("samples", "number", "kinds", "fractions", "repeats", "draws")  # of the same study with images
FIDELITY = ("number", "rates", "kinds", "probes", "held_out", "stability", "growth", "sanity", "fractions", "repeats")
FIDELITY += ("negative", "draws", "images", "bootstrap")
SEEDED = ("probes", "evaluation")  # groups with a seed of their own
DEFAULTS = ("objective", "estimator", "ratio", "amplify_ratio", "factor", "bare")  # of a concept, mostly by granularity


def settle(config: Config, folders: Sequence[Path] = ()) -> Config:
    """A copy of the composed config in which defaults that depend on others are filled in. Raises UserError.

    folders: further ones with configs (`--config-dir`), whose options `model.erased` may name.
    """
    config = {
        group: dict(value) if isinstance(value, dict) else value
        for group, value in config.items()
        if group != "study"  # an experiment's table is none of the run's business
    }
    for key, seed in (("seed", config["seed"]), *((f"{g}.seed", config[g].get("seed", 0)) for g in SEEDED)):
        if type(seed) is not int or seed < 0:
            raise UserError(f"{key} must be a whole number of at least 0, not {seed!r}")
    for group in ("concept", "granularity"):
        check_name(config[group]["name"], f"{group}.name")
    listed.settle(config)
    config["model"]["erased"] = _erased(config, folders)
    concept, granularity, edit = config["concept"], config["granularity"]["name"], config["edit"]
    if edit.get("bare_prompt"):  # the public CAD code's: the concept's name, with no person to keep beside it
        concept |= concept.get("bare", {})
    # What the option says of its method is no setting of the run; a settled config shows it by its granularity.
    scored, own = edit.pop("needs_scores", granularity != "none"), edit.pop("scored_by", None)
    if not scored:
        _without_scores(config)
    if config["objective"]["name"] == "auto":
        config["objective"]["name"] = "amplify" if edit["name"] == "amplify" else concept["objective"][granularity]
    if config["estimator"]["name"] == "auto":
        chosen = "first_order" if edit["name"] == "amplify" else concept["estimator"]
        # The settings that the config holds are those of ablated_gradients; first_order has none.
        config["estimator"] = {"name": chosen} if chosen == "first_order" else config["estimator"] | {"name": chosen}
    if own not in (None, config["estimator"]["name"]):
        raise UserError(f"edit={edit['name']} goes by its own scores, estimator={own}: leave out the other estimator")
    if edit["name"] == "none" or not scored:
        edit |= {"ratio": None, "count": None, "factor": None}
    elif edit["ratio"] is None and edit["count"] is None:
        edit["ratio"] = concept["amplify_ratio"] if edit["name"] == "amplify" else concept["ratio"][granularity]
    if edit["factor"] is None and edit["name"] != "none" and scored:
        edit["factor"] = concept["factor"][granularity] if edit["sign"] != "negative" else 0.0
    check_edit(edit)
    check_concept(concept)
    _choose_judge(config)
    # What only stood for values left open is no part of the run: other defaults tomorrow must not hide its results.
    config["model"].pop("rivals", None)
    config["concept"] = {key: value for key, value in concept.items() if key not in DEFAULTS}
    config["evaluation"]["higher_concept_is_better"] = edit["sign"] == "negative"
    _check(config["evaluation"], concept)
    policy.check(config)
    if config["runtime"]["batch_size"] < 1 or config["probes"]["batch_size"] < 1:
        raise UserError("runtime.batch_size and probes.batch_size must be at least 1")
    return config


def _erased(config: Config, folders: Sequence[Path]) -> Config | None:
    """In place of the overrides of `model.erased` what they settle to, as far as the erasing edit depends on it."""
    asked = config["model"].get("erased")
    settled = ("concept", *erasing.FREE)
    if not asked or (isinstance(asked, dict) and set(asked) == set(settled)):  # then it was settled before
        return asked or None
    first = erasing.composed(config, folders)
    try:
        first = settle(first)
    except UserError as error:
        raise UserError(f"model.erased: {error}") from error
    return {group: first[group] for group in settled}


def _choose_judge(config: Config) -> None:
    """Who judges: the group's choice, else the model's own (`model.judge`), which then says the same."""
    judge = config["judge"] = config.get("judge", {"name": "auto"})
    own = config["model"].get("judge")
    # With judge=auto the group holds the settings of the published judges, which mean nothing to others.
    auto = judge["name"] == "auto"
    name = own if auto else judge["name"]
    name = None if name == "none" else name
    config["judge"] = {"name": name} if name is None or (auto and name != "real") else judge | {"name": name}
    config["model"]["judge"] = config["judge"]["name"]


def _without_scores(config: Config) -> None:
    """What a method without scores does not use is called `none`, so that no result claims it."""
    edit = config["edit"]
    for key in ("ratio", "count", "factor"):
        if edit[key] is not None:
            raise UserError(f"edit={edit['name']} chooses no components: it takes no edit.{key}")
    if "path" in edit:
        find_file(edit["path"], "edit.path", "file of weights", "give edit.path=FILE")
    config |= {group: {"name": "none"} for group in ("objective", "estimator")}
    config["granularity"] = {"name": "none", "kinds": [], "scope": None}
    config["evaluation"] |= {"fidelity": None, "timesteps": None}
    edit["scope"] = None


def _check(settings: Config, concept: Config) -> None:
    _check_resamples("evaluation.fid_bootstrap", settings["fid_bootstrap"])
    if settings["fidelity"]:
        _check_study("evaluation.fidelity", settings["fidelity"], FIDELITY)
        if settings["fidelity"]["images"]:
            _check_study("evaluation.fidelity.images", settings["fidelity"]["images"], SEEN)
        _check_resamples("evaluation.fidelity.bootstrap", settings["fidelity"]["bootstrap"])
    if settings["metrics"] and settings["samples"] < 1:
        raise UserError("evaluation.samples must be at least 1")
    if settings["metrics"] and settings["reference_samples"] < 1:
        raise UserError("evaluation.reference_samples must be at least 1")
    if settings["batch_size"] < 1:
        raise UserError("evaluation.batch_size must be at least 1")
    if {"retention", "quality"} & set(settings["metrics"]) and settings["retention_samples"] < 1:
        raise UserError("evaluation.retention_samples must be at least 1 for retention and quality")
    if not concept["evaluation_prompts"]:
        raise UserError(f"the concept {concept['name']} has no evaluation_prompts: give it at least one")


def _check_study(key: str, given: object, wanted: tuple[str, ...]) -> None:
    """UserError unless all settings of a study of the scores are there, as in conf/evaluation/fidelity.yaml."""
    lacking = [name for name in wanted if not isinstance(given, dict) or name not in given]
    if lacking:
        raise UserError(f"{key} lacks {', '.join(lacking)}: evaluation=fidelity has them all, null asks for no study")


def _check_resamples(key: str, given: object) -> None:
    if not isinstance(given, int) or isinstance(given, bool) or given < RESAMPLES:
        raise UserError(f"{key}={given}: a 95 % interval needs a whole number of at least {RESAMPLES} resamples")
