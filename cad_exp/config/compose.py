"""Hydra's configs of many jobs, fast: YAML is read once, and Hydra's own settings are left out.

`hydra.compose` reads every file again for every job and merges Hydra's own hundred settings: 160 ms a job, this takes a
fifth. The steps are those of Hydra's ConfigLoaderImpl (1.3); a test holds the result against `hydra.compose`.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from hydra import initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import CachingConfigRepository
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.defaults_list import create_defaults_list
from hydra.core.default_element import ResultDefault
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.plugins.config_source import ConfigResult, ConfigSource
from hydra.types import RunMode
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from cad_exp.config import grammar, hydra_errors, options, search_path
from cad_exp.config.as_dict import as_dict
from cad_exp.utils.errors import UserError

NAME = "config"


@contextmanager
def hydra(folders: list[Path]) -> Iterator[Composer]:
    """Initialise one Hydra on the config folders (the first: the package's). Its errors become UserErrors.

    Another one around it, the command line's for example, is there again afterwards.
    """
    around = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with search_path.searched(folders[1:]), initialize_config_dir(str(folders[0]), version_base="1.3"):
            yield Composer(folders)
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(hydra_errors.explain(error, folders)) from error
    finally:
        GlobalHydra.instance().hydra = around


def compose(overrides: Sequence[str] = (), folders: str | Path | Sequence[str | Path] = ()) -> dict[str, Any]:
    """Return the config of a run as plain dicts, as `python -m cad_exp OVERRIDES` composes it; for `cad_exp.run`.

    Args:
        overrides: as on the command line, e.g. ["concept=church", "granularity=head"]; one text is one override.
        folders: further ones with options, as `--config-dir` takes them; paths or texts, one alone or a list.

    Raises:
        UserError: an option, a key or a folder that is not there, an override of several values, a text that Hydra
            cannot read, or what is no text.

    Examples:
        >>> config = cad_exp.compose(["concept=church", "granularity=head"])
        >>> config["concept"]["prompt"], config["granularity"]["name"]
        ('church', 'head')
    """
    if isinstance(overrides, str):  # no list of its letters
        overrides = [overrides]
    if isinstance(folders, str | Path):
        folders = [folders]
    if not isinstance(overrides, Sequence) or not all(isinstance(item, str) for item in overrides):
        raise UserError(f"overrides is a list of texts such as 'concept=church', not {overrides!r}")
    if not isinstance(folders, Sequence) or not all(isinstance(item, str | Path) for item in folders):
        raise UserError(f"folders is a list of paths to folders with options of your own, not {folders!r}")
    places = [options.conf_folder(), *map(Path, folders)]
    options.exist(places)
    grammar.one_value_each(grammar.parse(list(overrides), places), "compose a config for each of them")
    with hydra(places) as composer:
        return composer.job(list(overrides))


class Composer:
    """Composes sweeps and jobs."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = folders
        loader = GlobalHydra.instance().config_loader()
        assert isinstance(loader, ConfigLoaderImpl)
        self._loader = loader
        _, self._repository = self._loader._parse_overrides_and_create_caching_repo(NAME, [])
        self._fresh = _Fresh(self._repository)
        self._parts: dict[tuple[Any, ...], dict[str, Any]] = {}

    def sweep(self, arguments: list[str]) -> tuple[list[list[str]], Any]:
        """Return the overrides of every job that `-m` with these arguments would run, and the section `study`."""
        self._parse(arguments)
        state = GlobalHydra.instance().hydra
        assert state is not None
        config = state.compose_config(
            NAME, list(arguments), run_mode=RunMode.MULTIRUN, from_shell=False, with_log_configuration=False
        )
        params = as_dict(config.hydra.sweeper).get("params") or {}
        asked = [*(f"{key}={value}" for key, value in params.items()), *config.hydra.overrides.task]
        [jobs] = BasicSweeper.split_arguments(self._parse(asked), None)
        study = config.get("study")
        return jobs, OmegaConf.to_container(study, resolve=True) if OmegaConf.is_config(study) else study

    def job(self, overrides: list[str], given: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the resolved config of one job, without Hydra's own settings.

        given: whole groups that take the place of the composed ones, before anything refers to them.
        """
        parsed = self._parse(overrides)
        defaults = create_defaults_list(
            repo=self._repository, config_name=NAME, overrides_list=parsed, prepend_hydra=False, skip_missing=False
        )
        merged: dict[str, Any] = {}
        for default in defaults.defaults:
            merge(merged, self._part(default))
        config = OmegaConf.create(merged)
        OmegaConf.set_struct(config, True)  # so that a misspelt key is an error, as in a run
        self._loader._apply_overrides_to_config(defaults.config_overrides, config)
        OmegaConf.set_struct(config, False)
        config.pop("hydra", None)
        for group, content in (given or {}).items():
            config[group] = content
        return as_dict(config, complete=True)

    def _parse(self, overrides: list[str]) -> list[Override]:
        parsed = OverridesParser.create(config_loader=self._loader).parse_overrides(overrides)
        for item in parsed:
            grammar.check_choice(item, self._folders)
        return parsed

    def _part(self, default: ResultDefault) -> dict[str, Any]:
        """Return what one option adds to the config: its content in its package, without its own list of defaults."""
        key = default.config_path, default.package, default.primary
        if key not in self._parts:
            alone = self._loader._compose_config_from_defaults_list(defaults=[default], repo=self._fresh)
            self._parts[key] = as_dict(alone, resolve=False)
        return self._parts[key]


def merge(into: dict[str, Any], content: dict[str, Any]) -> None:
    """Lay plain content over a config, as OmegaConf merges what has no types: mappings by key, all else as a whole.

    A value that is still missing (???) takes the place of nothing.
    """
    for key, value in content.items():
        old = into.get(key)
        if isinstance(value, dict) and isinstance(old, dict):
            merge(old, value)
        elif key not in into or value != "???":
            into[key] = copy.deepcopy(value)


class _Fresh(CachingConfigRepository):
    """Hands out copies of what a repository holds: composing merges into the first config that it is given."""

    def __init__(self, source: CachingConfigRepository):
        self.source = source

    def load_config(self, config_path: str) -> ConfigResult | None:
        found = self.source.load_config(config_path)
        return found and replace(found, config=copy.deepcopy(found.config))

    def get_schema_source(self) -> ConfigSource:
        return self.source.get_schema_source()
