"""What a study runs: its jobs as `python -m cad_exp -m experiment=NAME ...` would start them. Nothing runs here."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cad_exp.config import commands, grammar, options
from cad_exp.config.compose import hydra
from cad_exp.config.effective import asked
from cad_exp.config.resolve import Config, resolve
from cad_exp.reporting.tables.study import Study, read
from cad_exp.utils.errors import UserError, choose

_NOTHING = object()


@dataclass(frozen=True)
class Job:
    """One run of the sweep. overrides: all of them, as Hydra gives them to the job; hash: its run.config_hash."""

    overrides: tuple[str, ...]
    config: Config
    hash: str


@dataclass(frozen=True)
class Plan:
    """The jobs of a study, in the order of the sweep.

    given: what the command adds to experiment=NAME; planned: how many combinations the sweep has.
    """

    name: str
    study: Study
    jobs: tuple[Job, ...]
    given: tuple[str, ...]
    config_folders: tuple[Path, ...]
    planned: int = 0

    def command(self, job: Job) -> str:
        """Return what to type to run this job alone."""
        return self._command([], job.overrides)

    @property
    def sweep(self) -> str:
        """What to type to run the whole study."""
        return self._command(["-m"], self.given)

    def _command(self, flags: list[str], overrides: tuple[str, ...]) -> str:
        kept = [item for item in overrides if _key(item) not in ("experiment", "study")]
        arguments = [*flags, commands.override("experiment", self.name), *kept]
        return commands.shell("cad_exp", arguments, self.config_folders[1:])


def plan(arguments: list[str], config_folders: list[Path] | None = None, most: int | None = None) -> Plan:
    """Return the plan of `experiment=NAME` and overrides as a sweep takes them; UserError for anything misspelt.

    config_folders: further folders with configs (`--config-dir`). most: only so many jobs.
    """
    folders = [options.conf_folder(), *(config_folders or [])]
    options.exist(folders)
    for argument in arguments:
        if argument.startswith("-") or not ("=" in argument or argument.startswith("~")):
            raise UserError(
                f"a table does not understand '{argument}': give experiment=NAME and overrides as the sweep's"
            )
    grammar.parse(arguments, folders)
    names = [item.partition("=")[2] for item in arguments if _key(item) == "experiment"]
    if not names:
        raise UserError("which study? give experiment=NAME, or the folder of a run or sweep (--help)")
    name = choose(names[-1], options.options("experiment", folders), "experiment")
    with hydra(folders) as composer:
        # Launchers and folders of a pasted command mean nothing here, and their plugins may not be installed.
        overrides, section = composer.sweep([item for item in arguments if not _elsewhere(item)])
        study = read(section, name)
        jobs = _different(_job(item, resolve(composer.job(item), folders[1:])) for item in overrides[:most])
        given = tuple(item for item in arguments if _key(item) not in ("experiment", "study"))
        keys = () if given else study.keys  # the command may have left out the only option that has a key
        unknown = [key for key in keys if not _known(key, jobs)]
        if most:  # a job that was not asked for may have it
            for item in _new_first(overrides):
                if not unknown:
                    break
                config = resolve(composer.job(item), folders[1:])
                unknown = [key for key in unknown if _find(config, key, _NOTHING) is _NOTHING]
    for key in unknown:
        _refuse(key, jobs, name)
    return Plan(name, study, jobs, given, tuple(folders), len(overrides))


def _different(jobs: Iterable[Job]) -> tuple[Job, ...]:
    """One job per hash, the first: a sweep over what changes nothing (edit.ratio of edit=none) asks for one run."""
    kept: dict[str, Job] = {}
    for job in jobs:
        kept.setdefault(job.hash, job)
    return tuple(kept.values())


def _new_first(overrides: list[list[str]]) -> list[list[str]]:
    """Sort the jobs' overrides: those first that hold one which no job before holds. So few jobs hold them all."""
    seen: set[str] = set()
    new = []
    for item in overrides:
        new.append(not seen.issuperset(item))
        seen.update(item)
    return [item for _, item in sorted(zip(new, overrides, strict=True), key=lambda pair: not pair[0])]


def lookup(config: Config, key: str) -> Any:
    """Return the value of a dotted key; None where there is no such key."""
    return _find(config, key, None)


def _find(config: Any, key: str, default: Any) -> Any:
    for part in key.split("."):
        if not isinstance(config, dict) or part not in config:
            return default
        config = config[part]
    return config


def _known(key: str, jobs: tuple[Job, ...]) -> bool:
    return any(_find(job.config, key, _NOTHING) is not _NOTHING for job in jobs)


def _refuse(key: str, jobs: tuple[Job, ...], name: str) -> None:
    group = jobs[0].config.get(key.partition(".")[0])
    known = [f"{key.partition('.')[0]}.{name}" for name in group] if isinstance(group, dict) else jobs[0].config
    choose(key, known, f"config key in study: of conf/experiment/{name}.yaml")


def _job(overrides: list[str], config: Config) -> Job:
    return Job(tuple(overrides), config, asked(config))


def _key(override: str) -> str:
    """Return the group or first part of the key that an override changes."""
    return override.partition("=")[0].lstrip("+~").partition(".")[0]


def _elsewhere(override: str) -> bool:
    """Whether an override says only where and how the jobs are started."""
    return _key(override).partition("/")[0] == "hydra" and not override.lstrip("+~").startswith("hydra.sweeper.params")
