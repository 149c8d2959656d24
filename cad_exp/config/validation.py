"""A composed config against its types: `RunConfig`, or one sentence for the first setting that is wrong. No torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from cad_exp.config import options
from cad_exp.config.schema import RunConfig
from cad_exp.config.schema.base import Group, is_tag
from cad_exp.config.schema.types import KEY
from cad_exp.utils.errors import UserError

LONGEST = 60  # characters of a value that a sentence shows
Config = dict[str, Any]


def validate(config: Config, folders: Sequence[Path] = ()) -> RunConfig:
    """Return the config as typed groups.

    folders: the user's own; a group of options that lies there is none of ours, and passes.
    Raises UserError for the first setting that is wrong, with how many more there are.
    """
    own = own_groups(config, folders)
    try:
        return RunConfig.model_validate({key: value for key, value in config.items() if key not in own})
    except ValidationError as error:
        told = list(dict.fromkeys(sentence(each, config, folders) for each in error.errors(include_url=False)))
        # what refers to a wrong setting (noisy_latents.seed to seed) is wrong in the same way
        more = len({_what(each) for each in error.errors(include_url=False)}) - 1
        end = f" ({more} more setting{'s are' if more > 1 else ' is'} wrong)" if more else ""
        raise UserError(told[0] + end) from error


def own_groups(config: Config, folders: Sequence[Path]) -> list[str]:
    """Return the groups of the user's own in a config: folders of --config-dir that have no name of ours."""
    ours = RunConfig.model_fields
    return [key for key in config if key not in ours and any((folder / str(key)).is_dir() for folder in folders)]


def plain(checked: Any, given: Any) -> Any:
    """Return the checked values as plain dicts and lists, with just the keys that were given, in their order."""
    if isinstance(checked, BaseModel):
        return {key: plain(getattr(checked, key), value) for key, value in given.items()}
    if isinstance(checked, (tuple, list)):
        return [plain(item, item) for item in checked]
    return {key: plain(value, value) for key, value in checked.items()} if isinstance(checked, dict) else checked


def sentence(error: ErrorDetails, config: Config, folders: Sequence[Path]) -> str:
    """Write one sentence for one error of pydantic: the key, what was given, what is allowed."""
    place = [str(part) for part in error["loc"] if not is_tag(part) and part != "[key]"]
    if error["loc"][-1:] == ("[key]",):  # a name in a mapping
        return f"{'.'.join(place[:-1])} holds '{brief(place[-1])}', which {error['msg']}"
    key, value = ".".join(place), error["input"]
    if error["type"] == "unknown":
        where = f"setting in {key}" if key else "setting"
        return options.unknown(brief(error["ctx"]["name"]), error["ctx"]["known"], where)
    if error["type"] == "missing":
        return _missing(key, config, folders)
    if error["type"] == "wrong":
        reason = error["ctx"]["reason"]
        return reason.replace(KEY, key) if KEY in reason else f"{key}={brief(value)} {reason}"
    if len(place) == 1:
        return f"{key}={brief(value)} is no option of this group: choose one of {_options(key, folders)}"
    if error["type"] == "dict_type":
        return f"{key}={brief(value)} holds no names with values: write {key}={{NAME: VALUE}}"
    known = _fields().get(error.get("ctx", {}).get("class_name", ""), [])
    return f"{key}={brief(value)} is no group of settings: it has {', '.join(known)}"


def brief(value: object) -> str:
    """Return a value as it would be typed, in one short line."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    text = str(value)
    text = text if text.isprintable() else ascii(text)[1:-1]
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def _what(error: ErrorDetails) -> tuple[object, ...]:
    """Return what makes two errors the same one, met again by a reference."""
    if error["type"] == "wrong":
        return brief(error["input"]), error["ctx"]["reason"].partition(":")[0]
    return tuple(map(str, error["loc"])), error["type"]


def _missing(key: str, config: Config, folders: Sequence[Path]) -> str:
    """Explain what to add where a key is missing."""
    group, _, name = key.partition(".")
    if key == "seed":
        return "seed is missing: leave out ~seed, or give seed=0"
    if not name:
        return f"{key} is missing: choose one of {_options(key, folders)}"
    own = config[group].get("name")
    file = f"the file of {group}={brief(own)}" if own else f"its file in {group}/"
    told = f"{key} is missing: add '{name.rpartition('.')[2]}: ...' to {file}, or leave out ~{key}"
    if group == "concept" and name in ("ratio", "amplify_ratio", "factor", "objective", "estimator"):
        return f"{told} ('defaults: [_edit, _self_]' gives a concept all that it needs for edits)"
    return told


def _options(group: str, folders: Sequence[Path]) -> str:
    return ", ".join(options.options(group, [options.conf_folder(), *folders]))


@cache
def _fields() -> dict[str, list[str]]:
    """Return the keys of every group, by the name of its class."""
    return {cls.__name__: list(cls.model_fields) for cls in _below(Group)}


def _below(cls: type[Group]) -> Iterator[type[Group]]:
    for each in cls.__subclasses__():
        yield each
        yield from _below(each)
