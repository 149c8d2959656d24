"""One job as the command line starts it: run it, or show it when its folder holds it already; failures go to a file.

Separate from `__main__` because launchers send it to other processes by name.
"""

import json
import os
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from cad_exp.cli import ahead
from cad_exp.config import commands, hydra_errors, options, search_path
from cad_exp.config.as_dict import as_dict
from cad_exp.config.resolve import resolve
from cad_exp.pipeline import preflight
from cad_exp.pipeline.identity import run_identity
from cad_exp.reporting import run_folder, summary
from cad_exp.reporting.results import FILE, STOPPED, harm, load_results
from cad_exp.reporting.run_folder import ERROR
from cad_exp.utils import console, distributed, gpu_lock, process
from cad_exp.utils.errors import UserError, out_of_memory
from cad_exp.utils.io import CLOSED, FULL, atomic, system_error, write_json
from cad_exp.utils.process import FAILED, MISUSED
from cad_exp.utils.text import safe

GRACE = 10.0  # seconds
codes: list[int] = []  # of the jobs that failed in this process
begun = 0.0  # when the command of this process began


def job(config: DictConfig) -> None:
    """Run one job in Hydra's output folder.

    An error is shown, kept in error.json, and lets other jobs of a sweep go on. A single run that is refused before it
    began leaves nothing: its terminal has said all, and a sweep alone is asked later which of its jobs failed.
    """
    process.begin()
    runtime = HydraConfig.get()
    if Path(runtime.runtime.cwd).is_dir():  # a cluster's worker may have started elsewhere
        os.chdir(runtime.runtime.cwd)
    folder, command = Path(runtime.runtime.output_dir), _again(runtime)
    if runtime.mode == RunMode.MULTIRUN:
        changed = as_dict(runtime.job, resolve=False)["override_dirname"]
        console.say(f"\njob {runtime.job.num + 1}: {changed or 'defaults'}", style="bold")

    def fail(message: str, code: int, noted: bool = True) -> None:
        codes.append(code)
        if not distributed.main():
            time.sleep(GRACE)  # the first process mostly meets the same error, and then the launcher ends this one
        console.error(message)
        if distributed.main() and noted:
            with suppress(OSError, run_folder.Refused):  # a full disk is full for this file too
                _note(folder, message, code, command)
        elif distributed.main():
            _leave_nothing(folder)
        if distributed.size() > 1:
            sys.exit(code)  # the others may be waiting for this one: the launcher ends them

    def worth_a_note() -> bool:
        return runtime.mode == RunMode.MULTIRUN or (folder / ERROR).exists()  # which `_at_work` writes first of all

    try:
        if distributed.main():
            run_folder.check(folder, ignored=runtime.output_subdir)
        perform(as_dict(config, complete=True), folder, config, command)
    except KeyboardInterrupt as error:
        code = process.code_of(error)
        if distributed.main():
            with suppress(OSError, UserError):
                _note(folder, process.SENTENCES[code], code, command)
        raise
    except OmegaConfBaseException as error:
        fail(hydra_errors.explain(error, [options.conf_folder()]), MISUSED, noted=worth_a_note())
    except UserError as error:
        fail(str(error), FAILED, noted=not isinstance(error, run_folder.Refused) and worth_a_note())
    except Exception as error:
        advice = out_of_memory(error, as_dict(config)) or unwritten(error, folder)
        if advice is None:
            # a fault of ours or of a library: the trace goes to the log, the sweep goes on
            with open(folder / "run.log", "a", encoding="utf-8") as log:
                log.write(safe(traceback.format_exc()))
            advice = f"unexpected {type(error).__name__}: {error} (details in {folder / 'run.log'})"
        fail(advice, FAILED)


def start() -> None:
    """Forget the failures of an earlier command of this process."""
    global begun
    begun = time.time()
    codes.clear()
    Sweep.folder = None


def _leave_nothing(folder: Path) -> None:
    """Remove the folder that Hydra made for a run that was refused, and an empty outputs/; other folders stay."""
    with suppress(OSError):  # it holds something, or is gone
        if folder.stat().st_mtime >= begun > 0:
            folder.rmdir()
            if folder.parent == Path.cwd() / "outputs":
                folder.parent.rmdir()


def _again(runtime: HydraConf) -> str:
    """Return what to type to run this job alone, in its folder."""
    # as they were written: ${...} in them is not for Hydra's own config to resolve
    written: Any = OmegaConf.to_container(runtime.overrides.task, resolve=False)
    overrides = [*written, commands.override("hydra.run.dir", runtime.runtime.output_dir)]
    return commands.shell("cad_exp", overrides, search_path.of(runtime.runtime.config_sources))


def perform(config: dict[str, Any], folder: Path, composed: DictConfig, command: str) -> None:
    """Run, unless this folder holds the finished run of just these settings, code, weights and versions."""
    folders = search_path.of(HydraConfig.get().runtime.config_sources)
    config = resolve(config, folders)
    if HydraConfig.get().mode == RunMode.MULTIRUN and config.get("tracking"):
        config["tracking"]["sweep"] = Path(HydraConfig.get().sweep.dir).name  # the group of its runs
    if shown(config, folder):  # without the folder's lock: a folder that cannot be written can be shown
        return
    graph = preflight.check(config)
    with _at_work(folder, composed, command) if distributed.main() else nullcontext():
        if shown(config, folder, aloud=True):  # by another process, which had the lock before
            return
        from cad_exp.pipeline.run import execute  # torch takes seconds: only once there is work

        with gpu_lock.own(config["runtime"]["device"]):
            execute(config, graph, folder)


@contextmanager
def _at_work(folder: Path, composed: DictConfig, command: str) -> Iterator[None]:
    """Hold the folder; meanwhile, and after a failure, it says so (error.json), and which config is at work there."""
    hydra = HydraConfig.get()
    with run_folder.alone(folder, hydra.output_subdir):
        _note(folder, "it did not finish", FAILED, command)
        content = {"config": composed, "hydra": HydraConfig.instance().cfg, "overrides": hydra.overrides.task}
        for name, each in content.items():
            with atomic(folder / "config" / f"{name}.yaml") as draft:
                OmegaConf.save(each, draft)
        yield
    (folder / ERROR).unlink(missing_ok=True)


def _note(folder: Path, message: str, code: int, command: str) -> None:
    """Write error.json, by way of a draft that a kill at this moment leaves where nobody sees it."""
    draft = run_folder.claim(folder, ignored=HydraConfig.get().output_subdir) / ERROR
    write_json(draft, {"error": message, "code": code, "command": command})
    os.replace(draft, folder / ERROR)


def shown(config: dict[str, Any], folder: Path, aloud: bool = False) -> bool:
    """Show the run that the folder holds, if it is this very run, finished; return whether it is.

    aloud: else say what makes it run again. All processes of a run get one answer.
    Raises run_folder.Refused for a finished run of other settings.
    """
    with distributed.together(config["runtime"]["device"]):
        answer = distributed.agree(earlier(config, folder) if distributed.main() else None)
    assert answer is not None  # the first process has one
    done, why = answer
    if done:
        console.say("  finished before, nothing to do (delete the folder to run it again)")
        with console.harmless("the table"):
            summary.show_run(done, folder)
        summary.say_left_out(done)
    elif why and aloud:
        console.say(f"  runs again, and what lies there stays until that is done: {why}", style="yellow")
    return bool(done)


def earlier(config: dict[str, Any], folder: Path) -> tuple[dict[str, Any] | None, str | None]:
    """Return the finished run that the folder holds, or None, and why not.

    It is one of just these settings, code, weights and versions. Raises run_folder.Refused for a finished run of other
    settings.
    """
    if not run_folder.remains(folder):  # then nothing has to be hashed or asked of the hub
        return None, None
    run_folder.check_settings(folder, config)
    try:
        content = load_results(folder)
    except UserError as error:
        return None, str(error).partition(": ")[0]
    if content["run"].get("identity") != run_identity(config):
        return None, "code, versions, weights or files that it reads are not those of the finished run"
    why = harm(folder, content) if content["run"].get("complete") else "it was not complete"
    if STOPPED in (content["run"].get("left_out") or {}).values():
        why = "it was stopped before its images and pictures had their places"
    return (None, why) if why else (content, None)


def unwritten(error: Exception, folder: Path) -> str | None:
    """Return what to do about an error of the operating system on writing; None for another error."""
    found = system_error(error)
    if found is None or found.errno not in (*FULL, *CLOSED):
        return None
    if found.errno in FULL:
        return f"the disk of '{folder}' is full: make room and give the same command again, it continues"
    return f"'{found.filename or folder}' cannot be written ({found.strerror}): mend that, or give another folder"


def unmade(error: Exception) -> str | None:
    """Explain in one line why Hydra could not make the folder of a run or of a sweep; None for another error."""
    if not isinstance(error, OSError) or error.filename is None:
        return None
    name = str(error.filename)
    name = name if len(name) <= 120 else f"{name[:60]}...{name[-40:]}"
    key = "hydra.sweep.dir" if Sweep.folder else "hydra.run.dir"
    why = "it is a file" if isinstance(error, FileExistsError) else error.strerror
    return f"the folder '{name}' cannot be made ({why}): give another {key}"


class Sweep(Callback):
    """Notes the folder of a sweep when it starts, so that its failures can be told at its end."""

    folder: Path | None = None

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Note the folder, refuse one whose multirun.yaml is another program's, and check the jobs of a new one."""
        process.begin()
        Sweep.folder = Path(config.hydra.sweep.dir)
        file = Sweep.folder / "multirun.yaml"  # Hydra is about to write it
        if os.path.lexists(file) and not run_folder.swept(Sweep.folder):
            console.error(
                f"'{file}' is not of a sweep of cad_exp and would be overwritten: give another hydra.sweep.dir"
            )
            sys.exit(FAILED)  # Hydra turns every other exception of a callback into a warning
        if not os.path.exists(Sweep.folder):  # a sweep that goes on was checked when it began
            ahead.check(config)


def report_failures() -> None:
    """Tell a sweep's failed jobs together: each with its error and the command that runs it again."""
    if Sweep.folder is None or not distributed.main():
        return
    failed = []
    folders = sorted(mark.parent for mark in Sweep.folder.glob(f"*/{run_folder.MARK}"))
    for folder in folders:  # of cad_exp: another program may keep an error.json of its own
        if (folder / ERROR).exists() and not run_folder.held(folder):  # else another process is at work there
            failed.append(_failure(folder / ERROR))
    jobs = len(folders)
    if jobs:
        again = commands.shell("cad_exp tables", [str(Sweep.folder)])
        console.say(f"\nsweep folder  {Sweep.folder}  ({again})")
    if any((folder / FILE).is_file() for folder in folders):
        with console.harmless("the report of the sweep"):
            from cad_exp.reporting.html import runs_page

            runs_page.write(Sweep.folder)
    if not failed:
        return
    # one that was stopped in an earlier sweep has not stopped this one
    codes.extend(item["code"] if item["code"] in (FAILED, MISUSED) else FAILED for item in failed)
    if jobs > 1:
        console.error(f"{len(failed)} of {jobs} jobs failed; the same command runs only what is missing")
        for item in failed:
            console.error(f"{item['error']}\n       {item['command']}")


def _failure(path: Path) -> dict[str, Any]:
    """Read error, code and command from error.json; one that cannot be read gives an error that says so."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {"error": str(content["error"]), "code": int(content["code"]), "command": str(content["command"])}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {"error": f"{path} cannot be read, so why this job failed is not known", "code": FAILED, "command": ""}
