"""Weights & Biases as a mirror of the run's folder: offline by default, and never a question about an account.

`results.json` stays the truth, complete before anything is mirrored. An offline run lies in `folder`/wandb and can be
sent later with `wandb sync`. What the config leaves open, W&B's own variables say: WANDB_MODE, WANDB_PROJECT,
WANDB_ENTITY, WANDB_NAME, WANDB_NOTES, WANDB_TAGS, WANDB_RUN_GROUP, WANDB_JOB_TYPE, WANDB_DIR, WANDB_RUN_ID.
A W&B that fails costs one line, never the run.
"""

import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from hashlib import sha256
from netrc import NetrcParseError, netrc
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from cad_exp.utils import console, distributed
from cad_exp.utils.errors import UserError, choose
from cad_exp.utils.text import identifier

MODES = ("offline", "online", "disabled")
ALIASES = {"dryrun": "offline", "run": "online"}  # W&B's older words
MAX_ROWS = 10_000  # of a table in W&B; the full table is in components.parquet
MAX_IMAGES = 300  # of a run's images in W&B, spread evenly over the records; all are in the run's folder
MAX_NAME = 128  # characters of an artifact's name
FACTS = ("git", "versions", "device", "precision", "threads", "processes", "seconds", "identity", "config_hash")
METRIC_FIELDS = ("name", "variant", "value", "low", "high", "n", "higher_is_better")


class Tracker:
    """What a run reports. This one keeps nothing: it is what tracking.mode=disabled gives."""

    def log_facts(self, run: dict[str, Any]) -> None:
        """The section `run` of results.json: where and from what the numbers were made, and how long it took."""

    def log_metrics(self, metrics: list[dict[str, Any]]) -> None:
        """Metric dicts as in results.json."""

    def log_attribution(self, folder: Path | str) -> None:
        """The attribution in a folder: per granularity a table of named components and signed scores."""

    def log_images(self, images: dict[str, Path | str]) -> None:
        """Picture files by the name under which they are to appear."""

    def log_records(self, records: Path, images: dict[str, list[Path]]) -> None:
        """What the judges said of every image, beside it; images: variant -> files in the order of the records."""

    def log_artifact(self, path: Path | str, type: str) -> None:
        """A file or a folder as an artifact of this type ("attribution", "edit", "results")."""


def _harmless(method: Callable[..., None]) -> Callable[..., None]:
    """A method whose first failure costs one line; after it nothing more is sent."""

    @wraps(method)
    def call(self: "WandbTracker", *given: Any, **named: Any) -> None:
        if not self.broken:
            with console.harmless("the copy in Weights & Biases", self._break):
                method(self, *given, **named)

    return call


class WandbTracker(Tracker):
    """Reports to one Weights & Biases run. config: of the run, which names its artifacts."""

    def __init__(self, run: Any, config: dict[str, Any] | None = None):
        self.run, self.config, self.broken = run, config or {}, False
        self.facts: dict[str, Any] = {}

    def _break(self, reason: str) -> None:
        self.broken = True

    @_harmless
    def log_facts(self, run: dict[str, Any]) -> None:
        self.facts = {key: run[key] for key in FACTS if key in run}
        self.run.config.update(self.facts, allow_val_change=True)
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
        facts |= {group: _name(self.config, group) for group in GROUPS} | {"seed": self.config.get("seed")}
        artifact = wandb.Artifact(artifact_name(type, self.config), type=type, metadata=facts)
        artifact.add_dir(str(path)) if Path(path).is_dir() else artifact.add_file(str(path))
        self.run.log_artifact(artifact)

    @_harmless
    def finish(self, exit_code: int = 0) -> None:
        """End the W&B run; nothing can be reported any more."""
        self.run.finish(exit_code=exit_code)

    def _scores(self, attribution: Any, granularity: str) -> Any:
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

    def _table(self, columns: list[str], rows: list[list[Any]], mixed: bool = True) -> Any:
        import wandb

        return wandb.Table(columns=columns, data=rows, allow_mixed_types=mixed)

    def _image(self, path: Path | str) -> Any:
        import wandb

        return wandb.Image(str(path))

    def _log(self, content: dict[str, Any]) -> None:
        self.run.log(content)


GROUPS = ("model", "concept", "objective", "granularity", "estimator", "edit")


def artifact_name(type: str, config: dict[str, Any]) -> str:
    """ "edit-mini-church-erase-neuron": by model, concept, objective and granularity, in characters that W&B allows.

    A name that had to be changed or cut ends in a hash of the whole.
    """
    words = [type, *(_name(config, group) or "none" for group in GROUPS[:4])]
    name = "-".join(map(identifier, words))
    if name == "-".join(words) and len(name) <= MAX_NAME:
        return name
    return f"{name[: MAX_NAME - 9]}-{sha256('-'.join(words).encode(errors='replace')).hexdigest()[:8]}"


def _name(config: dict[str, Any], group: str) -> str | None:
    content = config.get(group)
    return str(content["name"]) if isinstance(content, dict) and content.get("name") is not None else None


def _of_one_type(column: Any) -> list[Any]:
    """A column in types that W&B can write: numbers as they are, everything else as text; None for nothing."""
    if column.dtype.kind in "bifu":
        return column.tolist()
    return [None if value is None or value != value else str(value) for value in column.tolist()]


@contextmanager
def track(
    config: dict[str, Any], folder: Path | str, identity: Callable[[dict[str, Any]], str] | None = None
) -> Iterator[Tracker]:
    """Yield the tracker that config["tracking"] asks for; see conf/tracking for its keys.

    `config` is the plain resolved config of the run, logged as it is; `folder` the run's folder, which holds all that
    W&B writes unless WANDB_DIR names another place. identity: of what the config stands for the id of the W&B run,
    so that a run that is resumed or repeated is the same one.
    With mode disabled, wandb is not even imported. UserError for an unknown mode, or for online without an account.
    """
    settings = config.get("tracking") or {"mode": "disabled"}
    mode = _mode(settings)
    if mode == "disabled" or not distributed.main():
        yield Tracker()
        return
    if mode == "online" and not _has_account():  # wandb itself would stop here and ask
        raise UserError(
            "Weights & Biases online needs an account on this machine: run `wandb login` once, "
            "or give tracking=offline and send the run later with `wandb sync`"
        )
    run_folder, key = Path(folder), identity(config) if identity else None
    folder = Path(os.environ.get("WANDB_DIR") or folder)
    # Artifacts are staged until they are sent: beside the run, not in the user's home.
    places = {"WANDB_DATA_DIR": str(folder / "wandb"), "WANDB_CACHE_DIR": str(folder / "wandb" / "cache")}
    values = {name: os.environ.get(name) or place for name, place in places.items()}
    with _environment(values | {"WANDB_SILENT": "true"}):
        run = None
        with console.harmless("the copy in Weights & Biases"):
            (folder / "wandb").mkdir(parents=True, exist_ok=True)
            run = _start(config, settings | {"folder": run_folder.name}, mode, folder, key)
        if run is None:
            yield Tracker()
            return
        tracker = WandbTracker(run, config)
        try:
            yield tracker
        except BaseException:
            tracker.finish(exit_code=1)  # wandb's own context manager would print a traceback
            raise
        tracker.finish()
        if not tracker.broken:
            _remove_earlier(run, folder)


def _mode(settings: dict[str, Any]) -> str:
    """What the config says, else WANDB_MODE (or WANDB_DISABLED), else offline."""
    if given := settings.get("mode"):
        return choose(given, MODES, "tracking mode")
    if os.environ.get("WANDB_DISABLED", "").lower() in ("true", "1"):
        return "disabled"
    asked = os.environ.get("WANDB_MODE", "").strip().lower() or "offline"
    return choose(ALIASES.get(asked, asked), MODES, "WANDB_MODE")


def _start(config: dict[str, Any], settings: dict[str, Any], mode: str, folder: Path, key: str | None) -> Any:
    import wandb

    quiet = wandb.Settings(
        silent=True,
        console="off",
        disable_git=True,
        disable_code=True,
        x_disable_stats=True,
        x_disable_machine_info=True,
    )

    def open_(name: str, variable: str, otherwise: Any = None) -> Any:  # wandb itself reads them once a process
        return settings.get(name) or os.environ.get(variable) or otherwise

    concept, granularity, edit = (_name(config, group) or "none" for group in ("concept", "granularity", "edit"))
    return wandb.init(
        mode=mode,
        dir=str(folder),
        config=config,
        project=open_("project", "WANDB_PROJECT", "cad_exp"),
        entity=open_("entity", "WANDB_ENTITY"),
        group=open_("group", "WANDB_RUN_GROUP", settings.get("sweep")),
        job_type=open_("job_type", "WANDB_JOB_TYPE", edit if granularity == "none" else f"{concept}-{granularity}"),
        tags=settings.get("tags")
        or [tag.strip() for tag in os.environ.get("WANDB_TAGS", "").split(",") if tag.strip()],
        notes=open_("notes", "WANDB_NOTES"),
        name=open_("name", "WANDB_NAME", settings.get("folder")),
        # The jobs of a sweep are runs of their own, whatever one variable says of them all.
        id=key if settings.get("sweep") else open_("id", "WANDB_RUN_ID", key),
        resume="allow" if mode == "online" else None,
        reinit="create_new",
        settings=quiet,
    )


def _remove_earlier(run: Any, folder: Path) -> None:
    """Earlier attempts of the very same run, offline: what they hold stands in this one, and `wandb sync` sends one."""
    current = Path(run.settings.sync_dir)
    own = re.compile(rf"offline-run-\d{{8}}_\d{{6}}-{re.escape(run.id)}")  # an id may hold dashes and stars
    for earlier in (folder / "wandb").iterdir():
        if own.fullmatch(earlier.name) and earlier.name != current.name and not earlier.is_symlink():
            shutil.rmtree(earlier, ignore_errors=True)


def _has_account() -> bool:
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai").hostname
    places = [os.environ["NETRC"]] if os.environ.get("NETRC") else ["~/.netrc", "~/_netrc"]
    for place in places:
        try:
            if netrc(os.path.expanduser(place)).authenticators(host or ""):
                return True
        except (OSError, NetrcParseError):
            continue
    return False


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Set environment variables inside the block and put back what was there."""
    before = {key: os.environ.get(key) for key in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for key, value in before.items():
            os.environ.pop(key, None) if value is None else os.environ.update({key: value})
