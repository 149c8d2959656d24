"""The command line: `python -m cad_exp concept=nudity granularity=neuron`. The only module that knows Hydra.

Nothing heavy is imported before a run really starts, so `--help` and a misspelt option answer at once.
"""

import os
import sys
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from cad_exp import terminal, usage
from cad_exp.errors import UserError

STOPPED, FAILED, MISUSED = 130, 1, 2
_codes: list[int] = []  # of the jobs that failed in this process


def job(config: DictConfig) -> None:
    """One run, in Hydra's output folder; a UserError is shown, counted, and lets the other jobs of a sweep go on."""
    runtime = HydraConfig.get()
    if runtime.mode.name == "MULTIRUN":
        terminal.say(f"\njob {runtime.job.num + 1}: {runtime.job.override_dirname or 'defaults'}", style="bold")
    try:
        plain: dict[str, Any] = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)  # type: ignore[assignment]
        from cad_exp.experiment import run  # torch takes seconds: only once the values are there

        run(plain, Path(runtime.runtime.output_dir))
    except OmegaConfBaseException as error:
        _fail(usage.explain(error, [usage.conf_folder()]), MISUSED)
    except UserError as error:
        _fail(str(error), FAILED)


def _fail(message: str, code: int) -> None:
    _codes.append(code)
    terminal.error(message)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; the exit code is 0, 1 if a run failed, 2 if the command is wrong, 130 if stopped."""
    arguments = sys.argv[1:] if arguments is None else arguments
    _codes.clear()
    # OpenMP's threads spin while they wait, which halves the speed on small machines; read when torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra hands errors over instead of printing them
    folders = [usage.conf_folder(), *usage.user_folders(arguments)]
    if {"-h", "--help"} & set(arguments):
        print(usage.help_text(folders))
        return 0
    sys.argv[1:] = arguments
    try:
        hydra.main(version_base="1.3", config_path=str(usage.conf_folder()), config_name="config")(job)()
    except KeyboardInterrupt:
        terminal.error("stopped; nothing half-written")
        return STOPPED
    except (HydraException, OmegaConfBaseException) as error:
        terminal.error(usage.explain(error, folders))
        return MISUSED
    return max(_codes, default=0)


if __name__ == "__main__":
    sys.exit(main())
