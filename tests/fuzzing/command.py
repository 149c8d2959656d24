"""One command in this process, in a folder and a home of its own: its exit code and what it printed."""

import importlib
import io
import logging
import os
import signal
import sys
import traceback
import types
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

UNLUCKY = 13  # the seed with which the stub fails
STUB = "cad_exp.pipeline.run"


class Late(BaseException):
    """The command took too long. Not an Exception, so that nobody mistakes it for a fault of the run."""


@dataclass(frozen=True)
class Answer:
    """code: None where the command did not end by itself. fault: the traceback of what escaped from it."""

    code: int | None
    out: str
    err: str
    fault: str = ""
    late: bool = False


def call(command: str, arguments: list[str], work: Path, home: Path, limit: float) -> Answer:
    """Run `python -m cad_exp tables arguments`, as far as that can be done in this process."""
    out, err = io.StringIO(), io.StringIO()
    before, folder, argv = dict(os.environ), os.getcwd(), list(sys.argv)
    os.environ |= {"HOME": str(home), "HF_HUB_OFFLINE": "1", "WANDB_MODE": "disabled", "COLUMNS": "110"}
    os.environ["CAD_EXP_PROMPTS"] = str(work.parents[2] / "prompts")
    os.chdir(work)
    code, fault, late = None, "", False
    try:
        with redirect_stdout(out), redirect_stderr(err), _alarm(limit):
            code = _main(command, arguments)
    except Late:
        late = True
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(bool(stop.code))
    except KeyboardInterrupt:
        fault = "KeyboardInterrupt"
    except BaseException:
        fault = traceback.format_exc()
    finally:
        os.chdir(folder)
        os.environ.clear()
        os.environ |= before
        sys.argv[:] = argv
        _forget()
    return Answer(code, out.getvalue(), err.getvalue(), fault, late)


def _main(command: str, arguments: list[str]) -> int:
    package, *name = command.split()
    return importlib.import_module(f"{package}.__main__").main([*name, *arguments])


def _forget() -> None:
    """What Hydra, the logging module and a sweep keep in the process, where a command has one of its own."""
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.hydra_config import HydraConfig

    from cad_exp.cli import job

    GlobalHydra.instance().clear()
    HydraConfig.instance().cfg = None
    job.Sweep.folder = None
    for handler in list(logging.getLogger().handlers):
        logging.getLogger().removeHandler(handler)
        with suppress(OSError):
            handler.close()


@contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    """Raise Late after so many seconds of computing, or eight times as many of waiting for others."""

    def ring(*_: Any) -> None:
        raise Late

    clocks = {signal.SIGPROF: (signal.ITIMER_PROF, seconds), signal.SIGALRM: (signal.ITIMER_REAL, 8 * seconds)}
    before = {number: signal.signal(number, ring) for number in clocks}
    before |= {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    for clock, length in clocks.values():
        signal.setitimer(clock, length)
    try:
        yield
    finally:
        for clock, _ in clocks.values():
            signal.setitimer(clock, 0)
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def stubbed() -> Iterator[None]:
    """Meanwhile a run stops where torch would be loaded: what came so far is accepted, and seed=13 is bad luck."""
    from cad_exp.utils import gpu_lock

    held, own = sys.modules.get(STUB), gpu_lock.own
    module = types.ModuleType(STUB)
    module.execute = _accepted  # type: ignore[attr-defined]
    sys.modules[STUB] = module
    gpu_lock.own = _nothing  # type: ignore[assignment]
    try:
        yield
    finally:
        gpu_lock.own = own
        sys.modules.pop(STUB)
        if held is not None:
            sys.modules[STUB] = held


@contextmanager
def _nothing(device: str) -> Iterator[None]:
    yield


def _accepted(config: dict[str, Any], graph: Any, folder: Path) -> dict[str, Any]:
    from cad_exp.data import prompts
    from cad_exp.utils.errors import UserError

    prompts.plan(config)  # the first thing that a real run does
    if config["seed"] == UNLUCKY:
        raise UserError("13 brings bad luck: take another seed")
    return {"metrics": [], "run": {}}  # a search reads it
