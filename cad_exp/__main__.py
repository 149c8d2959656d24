"""The command line: `python -m cad_exp concept=nudity granularity=neuron`. Hydra lives here and in `job`, nowhere else.

Nothing heavy is imported before a run really starts, so `--help` and a misspelt option answer at once.
"""

import os
import sys
from pathlib import Path

import hydra
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from cad_exp import job, parallel, terminal, usage
from cad_exp.identity import run_hash, sweep_name

STOPPED = 130


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; the exit code is 0, 1 if a run failed, 2 if the command is wrong, 130 if stopped."""
    arguments = sys.argv[1:] if arguments is None else arguments
    job.codes.clear()
    # OpenMP's threads spin while they wait, which halves the speed on small machines; read when torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra hands errors over instead of printing them
    folders = [usage.conf_folder(), *usage.user_folders(arguments)]
    if {"-h", "--help"} & set(arguments):
        print(usage.help_text(folders))
        return 0
    OmegaConf.register_new_resolver("run_hash", run_hash, replace=True)
    # Hydra's parser wants the flags first; people do not care.
    overrides = [item for item in arguments if "=" in item and not item.startswith("-")]
    sys.argv[1:] = [*(item for item in arguments if item not in overrides), *overrides, *_implied(arguments)]
    try:
        hydra.main(version_base="1.3", config_path=str(usage.conf_folder()), config_name="config")(job.job)()
    except KeyboardInterrupt:
        terminal.error("stopped; the same command continues where it was")
        return STOPPED
    except (HydraException, OmegaConfBaseException) as error:
        terminal.error(usage.explain(error, folders))
        return job.MISUSED
    except Exception as error:  # a launcher whose workers died, for example
        if told := job.unmade(error):
            terminal.error(told)
            return job.FAILED
        if job.Sweep.folder is None:
            raise
        what = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        terminal.error(usage.refused(error) or f"the launcher stopped with {what}")
        job.codes.append(job.FAILED)
    job.report_failures()
    return max(job.codes, default=0)


def _implied(arguments: list[str]) -> list[str]:
    """Overrides of Hydra's own settings that follow from the command."""
    # the first process keeps the log, once the folder is its own
    implied = [] if parallel.main() else [f"hydra.job_logging.handlers.file.filename={os.devnull}"]
    if {"-m", "--multirun"} & set(arguments):
        asked = [item for item in arguments if "=" in item and not item.startswith(("-", "hydra"))]
        fixed = [item.partition("=")[0].lstrip("+~") for item in asked if "," not in item]
        implied.append(f"hydra.job.config.override_dirname.exclude_keys=[{','.join(fixed)}]")
        if not any(item.startswith("hydra.sweep.dir=") for item in arguments):
            # absolute, because a cluster's workers may start in another folder
            implied.append(f"hydra.sweep.dir='{Path.cwd() / 'outputs' / 'multirun' / sweep_name(asked)}'")
    return implied


if __name__ == "__main__":
    sys.exit(main())
