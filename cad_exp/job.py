"""One job as the command line starts it: run it, or show it when its folder holds it already; failures go to a file.

Separate from `__main__` because launchers send it to other processes by name.
"""

import errno
import json
import os
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

from cad_exp import commands, complete, config_folders, entry, gpus, parallel, ready, terminal, usage
from cad_exp.cache import alone
from cad_exp.errors import UserError, out_of_memory
from cad_exp.files import write_json
from cad_exp.identity import run_identity
from cad_exp.results import finished
from cad_exp.settings import settle

FAILED, MISUSED = 1, 2
GRACE = 10.0  # seconds
ERROR = "error.json"  # in a job's folder from its start to its success
codes: list[int] = []  # of the jobs that failed in this process


def job(config: DictConfig) -> None:
    """One run in Hydra's output folder. An error is shown, kept in error.json, and lets other jobs of a sweep go on."""
    entry.begin()
    runtime = HydraConfig.get()
    if Path(runtime.runtime.cwd).is_dir():  # a cluster's worker may have started elsewhere
        os.chdir(runtime.runtime.cwd)
    folder, command = Path(runtime.runtime.output_dir), _again(runtime)
    if runtime.mode.name == "MULTIRUN":
        changed = OmegaConf.to_container(runtime.job, resolve=False)["override_dirname"]
        terminal.say(f"\njob {runtime.job.num + 1}: {changed or 'defaults'}", style="bold")

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
    except KeyboardInterrupt as error:
        code = entry.code_of(error)
        if parallel.main():
            with suppress(OSError):
                write_json(folder / ERROR, {"error": entry.SENTENCES[code], "code": code, "command": command})
        raise
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
            traceback.print_exc(file=log)
        fail(f"unexpected {type(error).__name__}: {error} (details in {folder / 'run.log'})", FAILED)


def start() -> None:
    """Forget the failures of an earlier command of this process."""
    codes.clear()
    Sweep.folder = None


def _again(runtime: Any) -> str:
    """What to type to run this job alone, in its folder."""
    # as they were written: ${...} in them is not for Hydra's own config to resolve
    written = OmegaConf.to_container(runtime.overrides.task, resolve=False)
    overrides = [*written, commands.override("hydra.run.dir", runtime.runtime.output_dir)]
    return commands.shell("cad_exp", overrides, config_folders.of(runtime.runtime.config_sources))


def perform(config: dict[str, Any], folder: Path) -> None:
    """Run, unless this folder holds the finished run of just these settings, code, weights and versions."""
    folders = config_folders.of(HydraConfig.get().runtime.config_sources)
    complete.check(config, folders)
    config = settle(config, folders)
    with parallel.together(config["runtime"]["device"]):
        done = parallel.agree(earlier(config, folder) if parallel.main() else None)
    if done:
        terminal.say("  finished before, nothing to do (delete the folder to run it again)")
        terminal.show_run(done, folder)
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
        entry.begin()
        Sweep.folder = Path(config.hydra.sweep.dir)


def report_failures() -> None:
    """Tell a sweep's failed jobs together: each with its error and the command that runs it again."""
    if Sweep.folder is None or not parallel.main():
        return
    failed = []
    for path in sorted(Sweep.folder.glob(f"*/{ERROR}")):
        if not _held(path.parent):  # else another process is at work there
            failed.append(json.loads(path.read_text(encoding="utf-8")))
    jobs = len(list(Sweep.folder.glob("*/config/overrides.yaml")))
    if jobs:
        again = commands.shell("cad_exp.tables", [str(Sweep.folder)])
        terminal.say(f"\nsweep folder  {Sweep.folder}  ({again})")
    if not failed:
        return
    # one that was stopped in an earlier sweep has not stopped this one
    codes.extend(item["code"] if item["code"] in (FAILED, MISUSED) else FAILED for item in failed)
    if jobs > 1:
        terminal.error(f"{len(failed)} of {jobs} jobs failed; the same command runs only what is missing")
        for item in failed:
            terminal.error(f"{item['error']}\n       {item['command']}")


def _held(folder: Path) -> bool:
    try:
        with FileLock(folder / ".lock", timeout=0):
            return False
    except Timeout:
        return True
