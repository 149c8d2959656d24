"""cad_exp: which components of a text-to-image diffusion model make a concept, which suppress it, proved by edits."""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "DiffusionModel": "model",
    "Probes": "probes",
    "sample_trajectory": "probes",
    "sample_noised": "probes",
    "load_folder": "image_folder",
    "Site": "components",
    "find_sites": "components",
    "GRANULARITIES": "components",
    "make_granularity": "components",
    "Objective": "objectives",
    "OBJECTIVES": "objectives",
    "make_objective": "objectives",
    "ESTIMATORS": "estimators",
    "make_estimator": "estimators",
    "Attribution": "attribution",
    "attribute": "attribution",
    "Edit": "edit",
    "EDITS": "edit",
    "make_edit": "edit",
    "select": "edit",
    "random_edit": "edit",
    "UserError": "errors",
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
