"""A tracker that copies what a run reports to Weights & Biases."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec

from cad_exp.reporting.tracking.tracker import Tracker
from cad_exp.utils import console
from cad_exp.utils.text import identifier

if TYPE_CHECKING:
    import pandas as pd
    import wandb

    from cad_exp.attribution.attribute import Attribution

P = ParamSpec("P")
MAX_ROWS = 10_000  # of a table in W&B; the full table is in components.parquet
MAX_IMAGES = 300  # of a run's images in W&B, spread evenly over the records; all are in the run's folder
MAX_NAME = 128  # characters of an artifact's name
FACTS = ("git", "versions", "device", "precision", "threads", "processes", "seconds", "identity", "config_hash")
METRIC_FIELDS = ("name", "variant", "value", "low", "high", "n", "higher_is_better")
GROUPS = ("model", "concept", "objective", "granularity", "estimator", "edit")


def _harmless(method: Callable[Concatenate[WandbTracker, P], None]) -> Callable[Concatenate[WandbTracker, P], None]:
    """Wrap a method whose first failure costs one line; after it nothing more is sent."""

    @wraps(method)
    def call(self: WandbTracker, /, *given: P.args, **named: P.kwargs) -> None:
        if not self.broken:
            with console.harmless("the copy in Weights & Biases", self._break):
                method(self, *given, **named)

    return call


class WandbTracker(Tracker):
    """Reports to one Weights & Biases run. config: of the run, which names its artifacts."""

    def __init__(self, run: wandb.Run, config: dict[str, Any] | None = None):
        self.run, self.config, self.broken = run, config or {}, False
        self.facts: dict[str, Any] = {}

    def _break(self, reason: str) -> None:
        self.broken = True

    @_harmless
    def log_facts(self, run: dict[str, Any]) -> None:
        self.facts = {key: run[key] for key in FACTS if key in run}
        config: Any = self.run.config  # its methods have no types
        config.update(self.facts, allow_val_change=True)
        self.run.summary.update({f"seconds/{stage}": seconds for stage, seconds in run.get("seconds", {}).items()})

    @_harmless
    def log_metrics(self, metrics: list[dict[str, Any]]) -> None:
        for metric in metrics:
            key = f"{metric['name']}/{metric['variant']}"
            bounds = {f"{key}/{end}": metric[end] for end in ("low", "high") if metric[end] is not None}
            self.run.summary.update({key: metric["value"], **bounds})
        rows = [[metric[field] for field in METRIC_FIELDS] for metric in metrics]
        self._log(
            {
                "metrics": self._table(["metric", *METRIC_FIELDS[1:]], rows),
                **{f"{metric['name']}/{metric['variant']}": metric["value"] for metric in metrics},
            }
        )

    @_harmless
    def log_attribution(self, folder: Path | str) -> None:
        from cad_exp.attribution.attribute import Attribution

        attribution = Attribution.load(folder)
        self._log({f"attribution/{name}": self._scores(attribution, name) for name in attribution.scores})

    @_harmless
    def log_images(self, images: dict[str, Path | str]) -> None:
        self._log({name: self._image(path) for name, path in images.items()})

    @_harmless
    def log_page(self, name: str, path: Path | str) -> None:
        import wandb

        self._log({name: wandb.Html(Path(path).read_text(encoding="utf-8"), inject=False)})

    @_harmless
    def log_records(self, records: Path, images: dict[str, list[Path]]) -> None:
        import pandas as pd

        table = pd.read_parquet(records)
        files = [file for variant in table["variant"].unique() for file in images.get(variant, [])]
        if len(files) != len(table):
            files = [Path()] * len(table)
        there = [number for number, file in enumerate(files) if file.is_file()]
        chosen = set(there[:: -(-len(there) // MAX_IMAGES)] if there else [])
        shown = [self._image(file) if number in chosen else None for number, file in enumerate(files)]
        columns = [shown, *(_of_one_type(table[name]) for name in table.columns)]
        rows = [list(row) for row in zip(*columns, strict=True)][:MAX_ROWS]
        self._log({"images": self._table(["image", *table.columns], rows, mixed=False)})

    @_harmless
    def log_artifact(self, path: Path | str, type: str) -> None:
        import wandb

        facts = {key: self.facts.get(key) for key in ("identity", "config_hash", "git")}
        facts |= {group: name_of(self.config, group) for group in GROUPS} | {"seed": self.config.get("seed")}
        artifact = wandb.Artifact(artifact_name(type, self.config), type=type, metadata=facts)
        artifact.add_dir(str(path)) if Path(path).is_dir() else artifact.add_file(str(path))
        self.run.log_artifact(artifact)

    @_harmless
    def finish(self, exit_code: int = 0) -> None:
        """End the W&B run; nothing can be reported any more."""
        self.run.finish(exit_code=exit_code)

    def _scores(self, attribution: Attribution, granularity: str) -> wandb.Table:
        table, scores = attribution.tables[granularity].reset_index(drop=True), attribution.scores[granularity].double()
        if len(table) == len(scores):
            table = table.assign(score=scores.numpy())
        else:  # one row per matrix, each a range of the score vector
            table = table.assign(
                score=[float(scores[a:b].sum()) for a, b in zip(table["start"], table["stop"], strict=True)]
            )
        strongest = table["score"].abs().sort_values(ascending=False, kind="stable").index[:MAX_ROWS]
        table = table.loc[sorted(strongest), ["name", "block", "kind", "score"]]
        return self._table(list(table.columns), table.to_numpy(dtype=object).tolist())

    def _table(self, columns: Sequence[str], rows: list[list[Any]], mixed: bool = True) -> wandb.Table:
        import wandb

        return wandb.Table(columns=[*columns], data=[*rows], allow_mixed_types=mixed)

    def _image(self, path: Path | str) -> wandb.Image:
        import wandb

        return wandb.Image(str(path))

    def _log(self, content: dict[str, Any]) -> None:
        self.run.log(content)


def artifact_name(type: str, config: dict[str, Any]) -> str:
    """Name an artifact "edit-mini-church-erase-neuron": by model, concept, objective and granularity.

    Only characters that W&B allows are used. A name that had to be changed or cut ends in a hash of the whole.
    """
    words = [type, *(name_of(config, group) or "none" for group in GROUPS[:4])]
    name = "-".join(map(identifier, words))
    if name == "-".join(words) and len(name) <= MAX_NAME:
        return name
    return f"{name[: MAX_NAME - 9]}-{sha256('-'.join(words).encode(errors='replace')).hexdigest()[:8]}"


def name_of(config: dict[str, Any], group: str) -> str | None:
    """Return the name of the option that a config chose from a group."""
    content = config.get(group)
    return str(content["name"]) if isinstance(content, dict) and content.get("name") is not None else None


def _of_one_type(column: pd.Series) -> list[Any]:
    """Return a column in types that W&B can write: numbers as they are, everything else as text; None for nothing."""
    values: list[Any] = column.tolist()
    if column.dtype.kind in "bifu":
        return values
    return [None if value is None or value != value else str(value) for value in values]
