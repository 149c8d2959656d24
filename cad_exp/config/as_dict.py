"""A config of OmegaConf as plain dicts and lists."""

from __future__ import annotations

from typing import Any

from omegaconf import OmegaConf


def as_dict(config: Any, resolve: bool = True, complete: bool = False) -> dict[str, Any]:
    """Return a config with keys and values as plain dicts and lists.

    resolve: put values in the place of references with ${. complete: raise MissingMandatoryValue where a value is ???.
    """
    content = OmegaConf.to_container(config, resolve=resolve, throw_on_missing=complete)
    assert isinstance(content, dict)
    return {str(key): value for key, value in content.items()}
