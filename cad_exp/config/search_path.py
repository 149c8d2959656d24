"""The user's own config folders (`--config-dir`): searched before the package's, read so that a fault is one sentence.

Two of Hydra's plugins: where it searches, and how a file there is read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigResult
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf.errors import OmegaConfBaseException

from cad_exp.config import options
from cad_exp.utils.errors import UserError

SCHEME = "user"
MOST = 20_000  # values in one file, aliases counted as often as they are used
_OURS = ("config", "search")  # the configs that options are composed into; one of the user's must not replace them
_searched: list[Path] = []


@contextmanager
def searched(folders: Sequence[Path]) -> Iterator[None]:
    """Search these folders for options, the first one first, whenever Hydra is initialised in the block."""
    before = list(_searched)
    _searched[:] = [Path(folder).absolute() for folder in folders]
    Plugins.instance().register(_Source)
    Plugins.instance().register(_SearchPath)
    try:
        yield
    finally:
        _searched[:] = before


def of(sources: Sequence[Any]) -> list[Path]:
    """Return the user's folders among `hydra.runtime.config_sources`, in the order of the search."""
    return [Path(each.path) for each in sources if each.schema == SCHEME]


class _SearchPath(SearchPathPlugin):
    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        packages = options.installed()
        for folder in reversed([folder for folder in _searched if folder not in packages]):
            search_path.prepend("command-line", f"{SCHEME}://{folder}")
        for folder in packages:  # after our own: they may not replace what we ship
            search_path.append("installed", f"{SCHEME}://{folder}")


class _Source(FileConfigSource):
    """Options from a folder of the user's. A config.yaml that lies there is another project's."""

    @staticmethod
    def scheme() -> str:
        return SCHEME

    def is_config(self, config_path: str) -> bool:
        return config_path.removesuffix(".yaml") not in _OURS and super().is_config(config_path)

    def load_config(self, config_path: str) -> ConfigResult:
        file = Path(self.path) / self._normalize_file_name(config_path)
        with _one_sentence(file):
            _check(file)
            return super().load_config(config_path)


@contextmanager
def _one_sentence(file: Path) -> Iterator[None]:
    """Raise UserError, which names the file and the line where one is known, for whatever is wrong with it."""
    try:
        yield
    except OSError as error:
        raise UserError(f"'{file}' cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"'{file}' is not in UTF-8: save it in this encoding") from error
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError, OmegaConfBaseException) as error:
        raise UserError(f"'{file}' cannot be read as YAML: {_fault(error)}") from error


def _check(file: Path) -> None:
    """Raise UserError unless the file is plain YAML of keys and values, and of a sensible size."""
    content = file.read_text(encoding="utf-8")
    if _size(yaml.compose(content, Loader=yaml.SafeLoader), {}) > MOST:
        raise UserError(f"'{file}' holds more than {MOST:,} values, by aliases that repeat each other: write it out")
    value = yaml.safe_load(content)
    if not isinstance(value, dict):
        raise UserError(f"'{file}' holds {_kind(value)}: an option is made of lines 'key: value'")
    if not isinstance(value.get("defaults", []), list):
        raise UserError(f"defaults in '{file}' must be a list, such as defaults: [_object, _self_]")


def _kind(value: object) -> str:
    names = {list: "a list", str: "one text", type(None): "nothing"}
    return names.get(type(value), "one value")


def _fault(error: Exception) -> str:
    """Explain what is wrong with a YAML file and in which line, without the parser's own layout."""
    mark = getattr(error, "problem_mark", None)
    where = f" (line {mark.line + 1})" if mark else ""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, OmegaConfBaseException):
        return "it holds a reference with ${ that leads nowhere; for the text ${ itself write \\${"
    what = str(getattr(error, "problem", None) or getattr(error, "reason", None) or error)
    if "could not determine a constructor for the tag" in what:
        return f"the tag {what.rpartition(' ')[2]} is not allowed, values are plain{where}"
    return " ".join(what.split()) + where


def _size(node: Any, known: dict[int, float]) -> float:
    """Count the values below a node when every alias is written out; endless for one that contains itself."""
    if id(node) not in known:
        known[id(node)] = float("inf")  # until it is known: met again meanwhile, it contains itself
        children = getattr(node, "value", None) if isinstance(node, yaml.CollectionNode) else []
        pairs = [part for child in children or [] for part in (child if isinstance(child, tuple) else (child,))]
        known[id(node)] = 1 + sum(_size(part, known) for part in pairs)
    return known[id(node)]
