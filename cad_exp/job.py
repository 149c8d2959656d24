"""One job as the command line starts it: run it, or show it when its folder holds it already; failures go to a file.

Separate from `__main__` because launchers send it to other processes by name.
"""

import errno
import json
import os
import shlex
import sys
import time
import traceback
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from cad_exp import gpus, parallel, ready, terminal, usage
from cad_exp.cache import alone
from cad_exp.errors import UserError, out_of_memory
from cad_exp.files import write_json
from cad_exp.identity import run_identity
from cad_exp.results import finished
from cad_exp.settings import settle
from cad_exp.text import safe

FAILED, MISUSED = 1, 2
GRACE = 10.0  # seconds
ERROR = "error.json"  # in a job's folder from its start to its success
codes: list[int] = []  # of the jobs that failed in this process


def job(config: DictConfig) -> None:
    """One run in Hydra's output folder. An error is shown, kept in error.json, and lets other jobs of a sweep go on."""
    runtime = HydraConfig.get()
    if Path(runtime.runtime.cwd).is_dir():  # a cluster's worker may have started elsewhere
        os.chdir(runtime.runtime.cwd)
    folder, overrides = Path(runtime.runtime.output_dir), list(runtime.overrides.task)
    command = shlex.join(["python", "-m", "cad_exp", *overrides, f"hydra.run.dir={folder}"])
    if runtime.mode.name == "MULTIRUN":
        terminal.say(f"\njob {runtime.job.num + 1}: {runtime.job.override_dirname or 'defaults'}", style="bold")

    def fail(message: str, code: int) -> None:
        codes.append(code)
        if not parallel.main():
            time.sleep(GRACE)  # the first process mostly meets the same error, and then the launcher ends this one
        terminal.error(message)
        if parallel.main():
            with suppress(OSError):  # a full disk is full for this file too
                write_json(folder / ERROR, {"error": message, "code": code, "command": command})
        if parallel.size() > 1:
            sys.exit(code)  # the others may be waiting for this one: the launcher ends them

    try:
        with alone(folder) if parallel.main() else nullcontext():
            if parallel.main():
                write_json(folder / ERROR, {"error": "it did not finish", "code": FAILED, "command": command})
            perform(OmegaConf.to_container(config, resolve=True, throw_on_missing=True), folder)
            if parallel.main():
                (folder / ERROR).unlink(missing_ok=True)
    except OmegaConfBaseException as error:
        fail(usage.explain(error, [usage.conf_folder()]), MISUSED)
    except UserError as error:
        fail(str(error), FAILED)
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            fail(f"the disk of '{folder}' is full: make room and give the same command again, it continues", FAILED)
            return
        if advice := out_of_memory(error, OmegaConf.to_container(config, resolve=True)):
            fail(advice, FAILED)
            return
        # a fault of ours or of a library: the trace goes to the log, the sweep goes on
        with open(folder / "run.log", "a", encoding="utf-8") as log:
            log.write(safe(traceback.format_exc()))
        fail(f"unexpected {type(error).__name__}: {error} (details in {folder / 'run.log'})", FAILED)


def perform(config: dict[str, Any], folder: Path) -> None:
    """Run, unless this folder holds the finished run of just these settings, code, weights and versions."""
    places = [Path(each.path) for each in HydraConfig.get().runtime.config_sources if each.schema == "file"]
    config = settle(config, [place for place in places if place != usage.conf_folder()])
    if HydraConfig.get().mode.name == "MULTIRUN" and config.get("tracking"):
        config["tracking"]["sweep"] = Path(HydraConfig.get().sweep.dir).name  # the group of its runs
    with parallel.together(config["runtime"]["device"]):
        done = parallel.agree(earlier(config, folder) if parallel.main() else None)
    if done:
        terminal.say("  finished before, nothing to do (delete the folder to run it again)")
        with terminal.harmless("the table"):
            terminal.show_run(done, folder)
        terminal.say_left_out(done)
        return
    ready.check(config)
    from cad_exp.experiment import run  # torch takes seconds: only once there is work

    with gpus.own(config["runtime"]["device"]):
        run(config, folder)


def earlier(config: dict[str, Any], folder: Path) -> dict[str, Any] | None:
    """The finished run of just these settings, code, weights and versions that the folder holds, or None."""
    if not (folder / "results.json").is_file():  # then nothing has to be hashed or asked of the hub
        return None
    return finished(folder, run_identity(config))


class Sweep(Callback):
    """Notes the folder of a sweep when it starts, so that its failures can be told at its end."""

    folder: Path | None = None

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        Sweep.folder = Path(config.hydra.sweep.dir)


def report_failures() -> None:
    """Tell a sweep's failed jobs together: each with its error and the command that runs it again."""
    if Sweep.folder is None or not parallel.main():
        return
    failed = []
    for path in sorted(Sweep.folder.glob(f"*/{ERROR}")):
        if not _held(path.parent):  # else another process is at work there
            failed.append(_failure(path))
    jobs = len(list(Sweep.folder.glob("*/config/overrides.yaml")))
    if jobs:
        terminal.say(f"\nsweep folder  {Sweep.folder}  (python -m cad_exp.tables {Sweep.folder})")
    if not failed:
        return
    codes.extend(item["code"] for item in failed)
    if jobs > 1:
        terminal.error(f"{len(failed)} of {jobs} jobs failed; the same command runs only what is missing")
        for item in failed:
            terminal.error(f"{item['error']}\n       {item['command']}")


def _failure(path: Path) -> dict[str, Any]:
    """What error.json says: error, code and command; of one that cannot be read, that it cannot."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {"error": str(content["error"]), "code": int(content["code"]), "command": str(content["command"])}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {"error": f"{path} cannot be read, so why this job failed is not known", "code": FAILED, "command": ""}


def _held(folder: Path) -> bool:
    try:
        with FileLock(folder / ".lock", timeout=0):
            return False
    except Timeout:
        return True
