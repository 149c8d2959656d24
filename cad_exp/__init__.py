"""cad_exp: which components of a text-to-image diffusion model make a concept, which suppress it, proved by edits."""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "DiffusionModel": "models.pipeline",
    "NoisyLatents": "data.noisy_latents",
    "sample_trajectory": "data.noisy_latents",
    "sample_noised": "data.noisy_latents",
    "load_folder": "data.image_folder",
    "ComponentSpace": "interventions.spaces",
    "Site": "interventions.spaces",
    "find_sites": "interventions.spaces",
    "GRANULARITIES": "interventions.spaces",
    "make_granularity": "interventions.spaces",
    "Objective": "attribution.objectives.build",
    "OBJECTIVES": "attribution.objectives",
    "make_objective": "attribution.objectives.build",
    "ESTIMATORS": "attribution.estimators",
    "make_estimator": "attribution.estimators",
    "Attribution": "attribution.attribute",
    "plot": "reporting.figures.plot",
    "attribute": "attribution.attribute",
    "Edit": "interventions.edit",
    "load_edit": "interventions.load_edit",
    "export_lora": "interventions.lora_file",
    "push_edit": "reporting.hub",
    "METHODS": "interventions.methods",
    "make_edit": "interventions.methods",
    "select": "interventions.selection",
    "random_edit": "interventions.selection",
    "compose": "config.compose",
    "run": "pipeline.run",
    "Records": "evaluation.records",
    "evaluate": "evaluation.erasure",
    "UserError": "utils.errors",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that `import cad_exp` stays light (no torch)."""
    if name not in _HOME:
        raise AttributeError(f"module 'cad_exp' has no attribute {name!r}")
    value = getattr(import_module(f"cad_exp.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
