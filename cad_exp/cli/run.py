"""The command `python -m cad_exp`: help, one run, or a sweep. Hydra lives here and in `job`, nowhere else.

Nothing heavy is imported before a run really starts, so `--help` and a misspelt option answer at once.
"""

from __future__ import annotations

import difflib
import io
import os
import sys
import warnings
from contextlib import nullcontext, redirect_stderr
from pathlib import Path
from typing import TYPE_CHECKING

from cad_exp import __version__
from cad_exp.cli import COMMANDS, help
from cad_exp.config import arguments, hydra_errors, options
from cad_exp.config.arguments import Arguments
from cad_exp.utils import console, distributed
from cad_exp.utils.errors import UserError
from cad_exp.utils.process import FAILED, MISUSED

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override


def main(given: list[str]) -> int:
    """Run the command line; the exit code is 0, 1 if a run failed, 2 if the command is wrong."""
    # OpenMP's threads spin while they wait, which halves the speed on small machines; read when torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra hands errors over instead of printing them
    try:
        asked = arguments.read(given)
        _no_command(asked.overrides)
        if asked.version:
            print(version())
            return 0
        options.exist(asked.folders)
        folders = [options.conf_folder(), *asked.folders]
        if asked.help:
            console.page(help.help_text(folders))
            return 0
        if asked.plan:
            from cad_exp.cli import plan

            plan.show(asked.overrides, asked.sweep, folders)
            return 0
        return _hydra(asked, folders)
    except UserError as error:
        console.error(str(error))
        return MISUSED


def _no_command(overrides: tuple[str, ...]) -> None:
    """Raise UserError for a misspelt command, where `tables` and others stand, and for a flag without its dashes."""
    if overrides and overrides[0] in ("help", "version"):
        raise UserError(f"'{overrides[0]}' is a flag here: python -m cad_exp --{overrides[0]}")
    if overrides and overrides[0] in COMMANDS:
        raise UserError(
            f"{overrides[0]} is a command, and its flags stand after it: python -m cad_exp {overrides[0]} ..."
        )
    if overrides and (close := difflib.get_close_matches(overrides[0], COMMANDS, n=1, cutoff=0.75)):
        raise UserError(f"'{overrides[0]}' is no command: did you mean '{close[0]}'? There are: {', '.join(COMMANDS)}")


def version() -> str:
    """Return name, version and commit: `cad_exp 0.1.0 (git 4fed71b)`."""
    from cad_exp.reporting.results import git_revision

    return f"cad_exp {__version__} ({f'git {revision}' if (revision := git_revision()) else 'installed without git'})"


def _hydra(asked: Arguments, folders: list[Path]) -> int:
    """Hand the command over to Hydra, which calls `job.job` once per run."""
    import hydra
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    from cad_exp.cli import job
    from cad_exp.config import grammar, search_path
    from cad_exp.pipeline.identity import run_name

    job.start()
    parsed = grammar.parse(asked.overrides, folders)
    sweep = grammar.sweeps(parsed, asked.sweep)
    if not sweep and not asked.flags:
        grammar.one_value_each(parsed)
    OmegaConf.register_new_resolver("run_name", run_name, replace=True)
    sys.argv[1:] = [*asked.flags, *asked.overrides, *_implied(parsed, sweep)]
    said = io.StringIO()  # what Hydra says of flags that only show something
    shows = not {"--multirun", "--run"}.intersection(asked.flags) and bool(asked.flags)
    try:
        with search_path.searched(asked.folders), warnings.catch_warnings():
            warnings.filterwarnings("error", module=r"hydra\.")  # of a folder that is not there, for example
            with redirect_stderr(said) if shows else nullcontext():
                hydra.main(version_base="1.3", config_path=str(options.conf_folder()), config_name="config")(job.job)()
    except UserError:
        raise
    except SystemExit as error:  # Hydra's own flags end so
        return _told(error, said.getvalue())
    except Exception as error:
        if told := job.unmade(error):
            console.error(told)
            return FAILED
        if job.Sweep.folder is None or isinstance(error, (HydraException, OmegaConfBaseException)):
            raise UserError(hydra_errors.explain(error, folders)) from error
        job.codes.append(FAILED)  # a launcher whose workers died, for example
        console.error(hydra_errors.refused(error) or f"the sweep stopped: {hydra_errors.explain(error, folders)}")
    job.report_failures()
    return max(job.codes, default=0)


def _told(error: SystemExit, said: str) -> int:
    """Return the exit code of a flag of Hydra's own. UserError where Hydra refused it, with what it said."""
    from cad_exp.cli import job

    if error.code and not job.codes and job.Sweep.folder is None:
        reason = " ".join(said.split()) or "Hydra cannot work with the flags of this command"
        raise UserError(f"{reason} (--help shows our flags, --hydra-help all)")
    return error.code if isinstance(error.code, int) else MISUSED if error.code else 0


def _implied(parsed: list[Override], sweep: bool) -> list[str]:
    """Return overrides of Hydra's own settings that follow from the command."""
    from cad_exp.config import commands
    from cad_exp.pipeline.identity import sweep_name

    # the first process keeps the log, once the folder is its own
    implied = [] if distributed.main() else [f"hydra.job_logging.handlers.file.filename={os.devnull}"]
    if sweep:
        own = [item for item in parsed if not item.key_or_group.partition(".")[0].partition("/")[0] == "hydra"]
        fixed = [item.key_or_group for item in own if not item.is_sweep_override()]
        implied.append(f"hydra.job.config.override_dirname.exclude_keys=[{','.join(map(commands.text, fixed))}]")
        if not any(item.key_or_group == "hydra.sweep.dir" for item in parsed):
            swept = [str(item.input_line) for item in own if item.is_sweep_override()]
            name = sweep_name([str(item.input_line) for item in own], swept)
            # absolute, because a cluster's workers may start in another folder
            implied.append(commands.override("hydra.sweep.dir", Path.cwd() / "outputs" / "multirun" / name))
    return implied
