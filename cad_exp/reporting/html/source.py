"""What lies in the folder of a finished run, read as far as a part of the report asks for it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

Metric = dict[str, Any]
# Kinds that are meant as well where one is asked for: as in interventions.spaces.sites, which needs diffusers.
ALSO = {"cross-attention": ("joint-attention",)}


@dataclass(frozen=True)
class Source:
    """A run's files. content: of results.json. command_folder: Hydra's `config/`, which may lie beside the files."""

    folder: Path
    content: dict[str, Any]
    command_folder: Path

    @property
    def run(self) -> dict[str, Any]:
        """The section `run` of results.json."""
        run: dict[str, Any] = self.content["run"]
        return run

    @property
    def metrics(self) -> list[Metric]:
        """The metrics of results.json."""
        metrics: list[Metric] = self.content["metrics"]
        return metrics

    @property
    def config(self) -> dict[str, Any]:
        """The whole resolved config; {} where the run does not say."""
        return self.run.get("config") or {}

    @property
    def task(self) -> str:
        """The task of the run."""
        return str(self.run.get("task") or "attribute")

    def setting(self, *keys: str) -> Any:
        """Return a value of the config by its keys; None where there is none."""
        found: Any = self.config
        for key in keys:
            found = found.get(key) if isinstance(found, dict) else None
        return found

    def has(self, name: str) -> bool:
        """Return whether the run left this file."""
        return (self.folder / name).is_file()

    def table(self, name: str) -> pd.DataFrame | None:
        """Return a table of the run; None where it left none."""
        return pd.read_parquet(self.folder / name) if self.has(name) else None

    @cached_property
    def components(self) -> pd.DataFrame | None:
        """The table of the components that the run's granularity has, in sites of the kinds that it asks for."""
        table = self.table("components.parquet")
        if table is None:
            return None
        own = table[table["granularity"] == self.run.get("granularity")]
        kinds = self.setting("granularity", "kinds")
        meant = [kind for asked in kinds or () for kind in (asked, *ALSO.get(asked, ()))]
        own = own if kinds is None else own[own["kind"].isin(meant)]
        return None if own.empty else own.reset_index(drop=True)

    @property
    def single(self) -> bool:
        """Whether every row of the table is one component; a row of weights is a matrix."""
        return self.run.get("granularity") != "weight"

    def scores(self) -> Any:
        """Return the scores (n,) float64 of the components, of weights too; numpy reads them."""
        rows = self.components
        if rows is None or self.single:
            return None if rows is None else rows["score"].to_numpy(dtype=float)
        from safetensors import safe_open

        with safe_open(str(self.folder / "attribution.safetensors"), framework="numpy") as file:
            return file.get_tensor(str(self.run["granularity"]))
