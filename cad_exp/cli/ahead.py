"""Before the first job of a new sweep: say which jobs can never work. If none can, nothing is begun."""

from __future__ import annotations

import sys
from typing import Any, NoReturn

from omegaconf import OmegaConf

from cad_exp.config import options, search_path
from cad_exp.pipeline import combinations
from cad_exp.utils import console
from cad_exp.utils.errors import UserError
from cad_exp.utils.process import FAILED, MISUSED

BASIC = "hydra._internal.core_plugins.basic_"  # Hydra's own sweeper, and its launcher, which works in this process


def check(config: Any) -> None:
    """Check every job of the sweep that Hydra is about to begin. Those that cannot work are told, and the others run.

    The process ends where none can, or where Hydra would stop in the middle because it cannot compose a job.
    With a launcher all of them begin: the machines of its workers may hold what is lacking here.
    """
    hydra = config.hydra
    if not hydra.sweeper["_target_"].startswith(BASIC):  # whose jobs follow from the outcomes of those before
        return
    folders = [options.conf_folder(), *search_path.of(hydra.runtime.config_sources)]
    typed: Any = OmegaConf.to_container(hydra.overrides, resolve=False)
    try:
        jobs = list(combinations.sweep([*typed["hydra"], *typed["task"]], folders))
    except UserError as error:
        _end(str(error), MISUSED)
    except Exception:  # a fault of ours or of a plug-in: its job tells it, with the trace in its log
        return
    refused = [job for job in jobs if job.graph is None]
    if len(refused) == len(jobs) and hydra.launcher["_target_"].startswith(BASIC):
        _end(combinations.told(refused, len(jobs)), FAILED)
    if refused:
        console.say(f"{combinations.told(refused, len(jobs))}\nThe others run.", style="yellow", stderr=True)


def _end(said: str, code: int) -> NoReturn:
    console.error(said)
    sys.exit(code)  # Hydra turns every other exception of a callback into a warning
