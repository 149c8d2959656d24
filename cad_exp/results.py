"""`results.json`: what a run measured, and everything needed to say what the numbers mean.

The file is the truth that tables, reports and Weights & Biases mirror. It is rewritten whole, and atomically, after
every metric: a run that is stopped leaves the metrics that it had finished and never a broken file.
"""

import hashlib
import json
import math
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

from cad_exp.errors import UserError

SCHEMA_VERSION = 1
VARIANTS = ("unedited", "edited", "random")
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
_NO_EFFECT_ON_NUMBERS = ("tracking",)


@contextmanager
def atomic(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside `path`; it takes the name of `path` only if the block ends without an exception."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(
        f".{path.stem}-{os.getpid()}{path.suffix}"
    )  # writers that look at the suffix still find it
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path | str, content: Any) -> None:
    """Write strict JSON atomically; a number that is not finite becomes null, because JSON has no NaN."""
    text = json.dumps(_plain(content), indent=2, ensure_ascii=False, allow_nan=False)
    with atomic(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def _plain(value: Any) -> Any:
    """The same content in JSON's own types (numpy and torch scalars, tuples, paths)."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [_plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def config_hash(config: dict[str, Any]) -> str:
    """16 hex digits of the SHA-256 of a config; groups that cannot change a number (tracking) do not count."""
    counted = {key: value for key, value in config.items() if key not in _NO_EFFECT_ON_NUMBERS}
    return hashlib.sha256(json.dumps(_plain(counted), sort_keys=True).encode()).hexdigest()[:16]


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
        "config_hash": config_hash(config),
        "seed": seed,
        "git": git_revision(),
        "versions": versions,
        "device": str(device),
        "seconds": {},
        **more,
    }


class Results:
    """The results of one run, mirrored in `folder`/results.json after every change.

    `run` is the dict of `run_info`. The attribute `metrics` is the list of metric dicts in the order of their arrival.
    """

    def __init__(self, folder: Path | str, run: dict[str, Any]):
        self.path = Path(folder) / "results.json"
        self.run = {"seconds": {}, **run}
        self.metrics: list[dict[str, Any]] = []
        self._write()

    def add(self, metric: dict[str, Any]) -> None:
        """Add one metric, or replace the one of the same name and variant.

        Keys: name, variant ("unedited", "edited", "random"), value, low and high (95 % interval or None), n (samples),
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

    def as_dict(self) -> dict[str, Any]:
        return {"schema_version": SCHEMA_VERSION, "run": self.run, "metrics": self.metrics}

    def _write(self) -> None:
        write_json(self.path, self.as_dict())


def load_results(folder: Path | str) -> dict[str, Any]:
    """Read results.json of a run folder; UserError if there is none, or one of another schema."""
    path = Path(folder) / "results.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} cannot be read as results ({error.__class__.__name__}): give the folder of a run"
        ) from None
    version = content.get("schema_version") if isinstance(content, dict) else None
    if version != SCHEMA_VERSION:
        raise UserError(f"{path} has schema version {version}, this cad_exp reads {SCHEMA_VERSION}: run it again")
    return content
