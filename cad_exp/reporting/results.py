"""`results.json`: what a run measured, and everything needed to say what the numbers mean.

The file is the truth that tables, reports and Weights & Biases mirror. It is rewritten whole, and atomically, after
every metric: a run that is stopped leaves the metrics that it had finished and never a broken file. It holds its own
checksum, and in `run.files` the SHA-256 of every other file that the run promises: damage is noticed by whoever reads.
"""

import hashlib
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

from cad_exp.config.effective import asked
from cad_exp.reporting import result_file
from cad_exp.reporting.schema import VERSION as SCHEMA_VERSION
from cad_exp.reporting.schema import Metric
from cad_exp.utils.errors import UserError
from cad_exp.utils.hashing import file_digest
from cad_exp.utils.io import inside, plain, write_json

FILE = "results.json"
REPORT = "report.html"  # may be made anew at any time, by another version: no promise of the run
STOPPED = "the run was stopped before it was made"  # of a picture, in `run.left_out`
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
    """Return the commit of this package's checkout, with "-dirty" if tracked files differ.

    None when installed without git.
    """
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
    """Return the `run` section of results.json: what ran, on what, and from which code.

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
    publish: called by `finish` once the file says complete, to bring the folder's files to where people look for them.
    """

    def __init__(self, folder: Path | str | None, run: dict[str, Any], publish: Callable[[], Any] | None = None):
        self.folder = None if folder is None else Path(folder)
        self.run = {"seconds": {}, **run, "complete": False}
        self.metrics: list[dict[str, Any]] = []
        self.publish = publish
        self._write()

    def add(self, *metrics: dict[str, Any]) -> None:
        """Add metrics, each in place of one of the same name and variant, and write the file once.

        Each has the entries of `schema.Metric`. ValueError otherwise.
        """
        for metric in metrics:
            self._add(metric)
        self._write()

    def _add(self, metric: dict[str, Any]) -> None:
        Metric.model_validate(plain(metric))
        key = (metric["name"], metric["variant"])
        places = [i for i, known in enumerate(self.metrics) if (known["name"], known["variant"]) == key]
        if places:
            self.metrics[places[0]] = dict(metric)
        else:
            self.metrics.append(dict(metric))

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
        """Mark the run as complete, with the SHA-256 of every file that it left: only then is it never run again.

        May be called again, for files or metrics that came after the first call (pictures): they join the promise.
        """
        if self.folder is not None:
            names = (path.relative_to(self.folder) for path in self.folder.rglob("*") if path.is_file())
            kept = sorted(name.as_posix() for name in names if _kept(name))
            self.run["files"] = dict(zip(kept, _digests(self.folder, kept), strict=True))
        self.run["complete"] = True
        self._write()
        if self.publish is not None and self.folder is not None:
            self.publish()

    def as_dict(self) -> dict[str, Any]:
        """Return the content of results.json, with its checksum."""
        return signed({"schema_version": SCHEMA_VERSION, "run": self.run, "metrics": self.metrics})

    def _write(self) -> None:
        if self.folder is not None:
            write_json(self.folder / FILE, self.as_dict())


def _kept(path: Path) -> bool:
    """Whether a file belongs to what a run promises: not the tracker's, the log, Hydra's, or results.json itself."""
    aside = ("wandb", "config", FILE, "run.log", "error.json")
    return path.parts[0] not in aside and not any(part.startswith(".") for part in path.parts)


def _digests(folder: Path, names: list[str]) -> list[str]:
    with ThreadPoolExecutor() as pool:  # hashing leaves the interpreter's lock
        return list(pool.map(lambda name: file_digest(folder / name), names))


def signed(content: dict[str, Any]) -> dict[str, Any]:
    """Return the same content with its own checksum: the SHA-256 of its canonical JSON without the checksum."""
    content = {key: value for key, value in content.items() if key != "checksum"}
    canonical = json.dumps(plain(content), sort_keys=True, ensure_ascii=False, allow_nan=False)
    return content | {"checksum": hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()}


def harm(folder: Path | str, content: dict[str, Any]) -> str | None:
    """Which promised file of a complete run is not what was written, in words; None when all are.

    The report does not count: it shows what the other files hold.
    """
    promised = content["run"].get("files")
    if not isinstance(promised, dict):
        return f"{FILE} promises no files"
    promised = {name: digest for name, digest in promised.items() if name != REPORT}
    for name in promised:
        path = inside(Path(folder), name)
        if path is None or not os.path.isfile(path):
            return f"{name} is missing"
    try:
        found = _digests(Path(folder), list(promised))
    except OSError as error:
        return f"{error.filename} cannot be read ({error.strerror})"
    changed = [name for name, digest in zip(promised, found, strict=True) if promised[name] != digest]
    return f"{changed[0]} is not what was written" if changed else None


def load_results(folder: Path | str) -> dict[str, Any]:
    """Read results.json of a run folder.

    Raises UserError if there is none, one of another schema, or one that is not what was written.
    """
    path = Path(folder) / FILE
    try:
        content: dict[str, Any] = result_file.parsed(path)
        version = content.get("schema_version") if isinstance(content, dict) else None
        if version is None:
            raise ValueError("it has no schema_version")
        if version != SCHEMA_VERSION:
            newer = isinstance(version, int) and version > SCHEMA_VERSION
            raise UserError(
                f"{path} has schema version {repr(version)[:40]}, this cad_exp reads {SCHEMA_VERSION}: "
                + ("a newer cad_exp wrote it, so update this one" if newer else "run it again")
            )
        if signed(content)["checksum"] != content.get("checksum"):
            raise UserError(f"{path} is not what was written (its checksum does not fit): run it again")
        result_file.check(content)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(
            f"{path} cannot be read as results ({reason}): run it again, or give the folder of another run"
        ) from None
    return content
