"""Start and end the Weights & Biases run of a job.

What the config leaves open, W&B's own variables say: WANDB_MODE, WANDB_PROJECT, WANDB_ENTITY, WANDB_NAME, WANDB_NOTES,
WANDB_TAGS, WANDB_RUN_GROUP, WANDB_JOB_TYPE, WANDB_DIR, WANDB_RUN_ID.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from netrc import NetrcParseError, netrc
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast
from urllib.parse import urlparse

from cad_exp.reporting.tracking.tracker import Tracker
from cad_exp.reporting.tracking.wandb_tracker import WandbTracker, name_of
from cad_exp.utils import console, distributed
from cad_exp.utils.errors import UserError, choose

if TYPE_CHECKING:
    import wandb

Mode = Literal["offline", "online", "disabled"]
MODES = ("offline", "online", "disabled")
ALIASES = {"dryrun": "offline", "run": "online"}  # W&B's older words


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


def _mode(settings: dict[str, Any]) -> Mode:
    """Return what the config says, else WANDB_MODE (or WANDB_DISABLED), else offline."""
    if given := settings.get("mode"):
        return cast(Mode, choose(given, MODES, "tracking mode"))
    if os.environ.get("WANDB_DISABLED", "").lower() in ("true", "1"):
        return "disabled"
    asked = os.environ.get("WANDB_MODE", "").strip().lower() or "offline"
    return cast(Mode, choose(ALIASES.get(asked, asked), MODES, "WANDB_MODE"))


def _start(config: dict[str, Any], settings: dict[str, Any], mode: Mode, folder: Path, key: str | None) -> wandb.Run:
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

    concept, granularity, edit = (name_of(config, group) or "none" for group in ("concept", "granularity", "edit"))
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


def _remove_earlier(run: wandb.Run, folder: Path) -> None:
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
