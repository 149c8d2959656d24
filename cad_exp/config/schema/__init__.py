"""The types of a run's config: one frozen class for each group, its fields the keys. `RunConfig` holds all."""

from cad_exp.config.schema.run import RunConfig

__all__ = ["RunConfig"]
