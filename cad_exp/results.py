"""`results.json`: what a run measured, and everything needed to say what the numbers mean.

The file is the truth that tables, reports and Weights & Biases mirror. It is rewritten whole, and atomically, after
every metric: a run that is stopped leaves the metrics that it had finished and never a broken file.
"""

import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

from cad_exp import result_file
from cad_exp.errors import UserError
from cad_exp.files import write_json
from cad_exp.identity import asked

SCHEMA_VERSION = 1
VARIANTS = ("unedited", "edited", "random", "attribution")  # the last: facts of the scores, not of images
FIELDS = ("name", "variant", "value", "low", "high", "n", "higher_is_better", "definition")
PACKAGES = (
    "cad-exp",
    "torch",
    "torchvision",
    "diffusers",
    "transformers",
    "torchmetrics",
    "numpy",
    "hydra-core",
    "wandb",
)


def git_revision(folder: Path | str | None = None) -> str | None:
    """The commit of this package's checkout, with "-dirty" if tracked files differ; None when installed without git."""
    folder = Path(folder) if folder else Path(__file__).parent

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        if not git("ls-files", "."):  # a virtual environment inside somebody else's repository
            return None
        return git("rev-parse", "HEAD") + ("-dirty" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _version(package: str) -> str | None:
    loaded = getattr(sys.modules.get(package), "__version__", None)  # torch's own version names its CUDA build
    if loaded:
        return str(loaded)
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def run_info(config: dict[str, Any], seed: int, device: Any, **more: Any) -> dict[str, Any]:
    """The `run` section of results.json: what ran, on what, and from which code.

    `config` is the plain resolved config; `more` adds further fields, for example the model's fingerprint.
    """
    versions = {"python": platform.python_version(), **{package: _version(package) for package in PACKAGES}}
    return {
        "config_hash": asked(config),
        "seed": seed,
        "git": git_revision(),
        "versions": versions,
        "device": str(device),
        "seconds": {},
        **more,
    }


class Results:
    """The results of one run, mirrored in `folder`/results.json after every change (None: in no file).

    `run` is the dict of `run_info`. The attribute `metrics` is the list of metric dicts in the order of their arrival.
    """

    def __init__(self, folder: Path | str | None, run: dict[str, Any]):
        self.folder = None if folder is None else Path(folder)
        self.run = {"seconds": {}, **run, "complete": False}
        self.metrics: list[dict[str, Any]] = []
        self._write()

    def add(self, metric: dict[str, Any]) -> None:
        """Add one metric, or replace the one of the same name and variant.

        Keys: name, variant (one of VARIANTS), value, low and high (95 % interval or None), n (samples),
        higher_is_better (what this run wants), definition (a dict that pins it down). ValueError otherwise.
        """
        if set(metric) != set(FIELDS) or metric["variant"] not in VARIANTS:
            raise ValueError(f"a metric has the fields {FIELDS} and a variant out of {VARIANTS}, not {metric}")
        key = (metric["name"], metric["variant"])
        places = [i for i, known in enumerate(self.metrics) if (known["name"], known["variant"]) == key]
        if places:
            self.metrics[places[0]] = dict(metric)
        else:
            self.metrics.append(dict(metric))
        self._write()

    @contextmanager
    def time(self, stage: str) -> Iterator[None]:
        """Measure the block's wall-clock seconds into run.seconds[stage]; a stage that ran in parts adds up."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.run["seconds"][stage] = round(self.run["seconds"].get(stage, 0.0) + time.perf_counter() - start, 3)
            self._write()

    def finish(self) -> None:
        """Mark the run as complete, with the size of every file that it left: only then is it never run again."""
        if self.folder is not None:
            files = sorted(p for p in self.folder.rglob("*") if p.is_file() and _kept(p.relative_to(self.folder)))
            self.run["files"] = {p.relative_to(self.folder).as_posix(): p.stat().st_size for p in files}
        self.run["complete"] = True
        self._write()

    def as_dict(self) -> dict[str, Any]:
        return {"schema_version": SCHEMA_VERSION, "run": self.run, "metrics": self.metrics}

    def _write(self) -> None:
        if self.folder is not None:
            write_json(self.folder / "results.json", self.as_dict())


def _kept(path: Path) -> bool:
    """Whether a file belongs to what a run promises: not the tracker's, the log, Hydra's, or results.json itself."""
    return path.parts[0] not in ("wandb", "config", "results.json", "run.log") and not path.parts[0].startswith(".")


def finished(folder: Path | str, identity: str) -> dict[str, Any] | None:
    """The content of results.json, if the run of this identity was completed here and all its files are still there."""
    try:
        content = load_results(folder)
        run = content["run"]
        whole = all((Path(folder) / name).stat().st_size == size for name, size in run["files"].items())
    except (UserError, KeyError, TypeError, OSError):
        return None
    return content if run.get("complete") and run.get("identity") == identity and whole else None


def load_results(folder: Path | str) -> dict[str, Any]:
    """Read results.json of a run folder; UserError if there is none, or one of another schema."""
    path = Path(folder) / "results.json"
    try:
        content = result_file.parsed(path)
        version = content.get("schema_version") if isinstance(content, dict) else None
        if version != SCHEMA_VERSION:
            shown = repr(version)[:40]
            raise UserError(f"{path} has schema version {shown}, this cad_exp reads {SCHEMA_VERSION}: run it again")
        result_file.check(content, FIELDS, VARIANTS)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"{path} cannot be read as results ({reason}): give the folder of a run") from None
    return content
