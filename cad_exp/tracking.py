"""Weights & Biases as a mirror of the run's folder: offline by default, and never a question about an account.

`results.json` stays the truth. An offline run lies in `folder`/wandb and can be sent later with `wandb sync`.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from netrc import NetrcParseError, netrc
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from cad_exp import parallel
from cad_exp.errors import UserError, choose

MODES = ("offline", "online", "disabled")
MAX_ROWS = 10_000  # of a table in W&B; the full table is in components.parquet


class Tracker:
    """What a run reports. This one keeps nothing: it is what tracking.mode=disabled gives."""

    def log_metrics(self, metrics: list[dict[str, Any]]) -> None:
        """Metric dicts as in results.json."""

    def log_attribution(self, attribution: Any, figure: Path | str | None = None) -> None:
        """An `Attribution`: per granularity a table of named components and signed scores; the map as a picture."""

    def log_images(self, images: dict[str, Path | str]) -> None:
        """Picture files by the name under which they are to appear."""

    def log_artifact(self, path: Path | str, type: str, name: str) -> None:
        """A file or a folder as an artifact of this type ("attribution", "edit", ...)."""


class WandbTracker(Tracker):
    """Reports to one Weights & Biases run."""

    def __init__(self, run: Any):
        self.run = run

    def log_metrics(self, metrics: list[dict[str, Any]]) -> None:
        for metric in metrics:
            key = f"{metric['name']}/{metric['variant']}"
            bounds = {f"{key}/{end}": metric[end] for end in ("low", "high") if metric[end] is not None}
            self.run.summary.update({key: metric["value"], **bounds})
        rows = [
            [metric[field] for field in ("name", "variant", "value", "low", "high", "n", "higher_is_better")]
            for metric in metrics
        ]
        self._log(
            {
                "metrics": self._table(["metric", "variant", "value", "low", "high", "n", "higher_is_better"], rows),
                **{f"{metric['name']}/{metric['variant']}": metric["value"] for metric in metrics},
            }
        )

    def log_attribution(self, attribution: Any, figure: Path | str | None = None) -> None:
        content = {
            f"attribution/{granularity}": self._scores(attribution, granularity) for granularity in attribution.scores
        }
        if figure:
            content["attribution/map"] = self._image(figure)
        self._log(content)

    def log_images(self, images: dict[str, Path | str]) -> None:
        self._log({name: self._image(path) for name, path in images.items()})

    def log_artifact(self, path: Path | str, type: str, name: str) -> None:
        import wandb

        artifact = wandb.Artifact(name, type=type)
        artifact.add_dir(str(path)) if Path(path).is_dir() else artifact.add_file(str(path))
        self.run.log_artifact(artifact)

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

    def _table(self, columns: list[str], rows: list[list[Any]]) -> Any:
        import wandb

        return wandb.Table(columns=columns, data=rows, allow_mixed_types=True)

    def _image(self, path: Path | str) -> Any:
        import wandb

        return wandb.Image(str(path))

    def _log(self, content: dict[str, Any]) -> None:
        self.run.log(content)


@contextmanager
def track(config: dict[str, Any], folder: Path | str) -> Iterator[Tracker]:
    """Yield the tracker that config["tracking"] asks for: mode (one of MODES), project, entity, group, tags.

    `config` is the plain resolved config of the run, logged as it is; `folder` the run's folder, which
    holds all that W&B writes.
    With mode disabled, wandb is not even imported. UserError for an unknown mode, or for online without an account.
    """
    settings = config.get("tracking") or {"mode": "disabled"}
    mode = choose(settings.get("mode", "offline"), MODES, "tracking mode")
    if mode == "disabled" or not parallel.main():
        yield Tracker()
        return
    folder = Path(folder)
    try:
        (folder / "wandb").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        told = f"'{folder / 'wandb'}' cannot be the folder of Weights & Biases ({error.strerror})"
        raise UserError(f"{told}: move it away, or give tracking=disabled") from error
    # Artifacts are staged until they are sent: in the run's folder, not in the user's home.
    places = {
        "WANDB_DATA_DIR": str(folder / "wandb"),
        "WANDB_CACHE_DIR": str(folder / "wandb" / "cache"),
        "WANDB_SILENT": "true",
    }
    with _environment(places):
        run = _start(config, settings, mode, folder)
        try:
            yield WandbTracker(run)
        except BaseException:
            run.finish(exit_code=1)  # wandb's own context manager would print a traceback
            raise
        run.finish()


def _start(config: dict[str, Any], settings: dict[str, Any], mode: str, folder: Path) -> Any:
    import wandb

    if mode == "online" and not _has_account():  # wandb itself would stop here and ask
        raise UserError(
            "tracking.mode=online needs a Weights & Biases account on this machine: run `wandb login` once, "
            "or leave tracking.mode at offline and send the run later with `wandb sync`"
        )
    quiet = wandb.Settings(
        silent=True,
        console="off",
        disable_git=True,
        disable_code=True,
        x_disable_stats=True,
        x_disable_machine_info=True,
    )
    try:
        return wandb.init(
            mode=mode,
            dir=str(folder),
            config=config,
            project=settings.get("project") or "cad_exp",
            entity=settings.get("entity"),
            group=settings.get("group"),
            tags=settings.get("tags") or None,
            name=folder.name,
            reinit="create_new",
            settings=quiet,
        )
    except wandb.errors.Error as error:
        raise UserError(f"Weights & Biases cannot start ({error}): tracking.mode=offline needs no connection") from None


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
