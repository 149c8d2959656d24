"""The config of a run with nothing left open, checked before any work is done."""

from typing import Any

from cad_exp.errors import UserError, choose

Config = dict[str, Any]
EVALUATIONS = ("erasure", "retention", "quality")
DEFAULTS = ("objective", "estimator", "ratio", "amplify_ratio", "factor")  # of a concept, by granularity


def settle(config: Config) -> Config:
    """A copy of the composed config in which defaults that depend on others are filled in. Raises UserError."""
    config = {
        group: dict(value) if isinstance(value, dict) else value
        for group, value in config.items()
        if group != "study"  # an experiment's table is none of the run's business
    }
    concept, granularity, edit = config["concept"], config["granularity"]["name"], config["edit"]
    if config["objective"]["name"] == "auto":
        config["objective"]["name"] = "amplify" if edit["name"] == "amplify" else concept["objective"][granularity]
    if config["estimator"]["name"] == "auto":
        chosen = "first_order" if edit["name"] == "amplify" else concept["estimator"]
        # The settings that the config holds are those of ablated_gradients; first_order has none.
        config["estimator"] = {"name": chosen} if chosen == "first_order" else config["estimator"] | {"name": chosen}
    if edit["name"] == "none":
        edit |= {"ratio": None, "count": None, "factor": None}
    elif edit["ratio"] is None and edit["count"] is None:
        edit["ratio"] = concept["amplify_ratio"] if edit["name"] == "amplify" else concept["ratio"][granularity]
    if edit["factor"] is None and edit["name"] != "none":
        edit["factor"] = concept["factor"][granularity] if edit["sign"] != "negative" else 0.0
    # What only stood for values left open is no part of the run: other defaults tomorrow must not hide its results.
    config["concept"] = {key: value for key, value in concept.items() if key not in DEFAULTS}
    config["evaluation"]["higher_concept_is_better"] = edit["sign"] == "negative"
    _check(config["evaluation"], concept)
    if config["runtime"]["batch_size"] < 1 or config["probes"]["batch_size"] < 1:
        raise UserError("runtime.batch_size and probes.batch_size must be at least 1")
    return config


def _check(settings: Config, concept: Config) -> None:
    for name in settings["metrics"]:
        choose(name, EVALUATIONS, "evaluation")
    if settings["metrics"] and settings["samples"] < 1:
        raise UserError("evaluation.samples must be at least 1")
    if settings["batch_size"] < 1:
        raise UserError("evaluation.batch_size must be at least 1")
    if {"retention", "quality"} & set(settings["metrics"]) and settings["retention_samples"] < 1:
        raise UserError("evaluation.retention_samples must be at least 1 for retention and quality")
    if not concept["evaluation_prompts"]:
        raise UserError(f"the concept {concept['name']} has no evaluation_prompts: give it at least one")
