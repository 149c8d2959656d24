"""The runs that one resolved config stands for: with `model.erased` there are two.

Apart from `erased_run`: a run's identity needs this, and stored results must not depend on how configs are made.
"""

from __future__ import annotations

from typing import Any

Config = dict[str, Any]


def runs(config: Config) -> list[Config]:
    """Return the resolved config, and that of the run that erases its model first, if one does."""
    return [config, alone(config)] if config["model"].get("erased") else [config]


def alone(config: Config) -> Config:
    """Derive the resolved config of the erasing run from that of a run with `model.erased`, for its stages."""
    quiet: Config = {"metrics": [], "fidelity": None, "timesteps": None}
    own = {"model": config["model"] | {"erased": None}, "evaluation": config["evaluation"] | quiet}
    erasing: Config = config["model"]["erased"]
    return config | erasing | own
