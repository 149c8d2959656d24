"""Reading a results.json that anybody may have written or damaged: its content in the types that readers rely on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

MOST_BYTES = 50_000_000
DEEPEST = 50  # levels of nesting; ours has six
LARGEST = 1e100  # of a metric's value: beyond it sums overflow
TABLES = ("config", "versions", "seconds", "left_out", "verdict")  # in `run`, where they are there


def check(content: dict[str, Any], fields: Sequence[str], variants: Sequence[str]) -> None:
    """ValueError where the content of a results.json has not the sections and types of one.

    fields and variants: those that every metric has and may have.
    """
    if not isinstance(content.get("run"), dict):
        raise ValueError("its section run is missing")
    for key in TABLES:
        if not isinstance(content["run"].get(key, {}), dict):
            raise ValueError(f"run.{key} is no table")
    _check_metrics(content.get("metrics"), fields, variants)


def parsed(path: Path) -> Any:
    """Return the JSON of a file. ValueError or OSError with the reason why it has none."""
    if not path.is_file():  # a folder, or a pipe that would never end
        raise ValueError("it is no file")
    if path.stat().st_size > MOST_BYTES:
        raise ValueError(f"it is larger than {MOST_BYTES // 1_000_000} MB")
    try:
        content = json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_number, parse_int=_whole)
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8") from None
    except json.JSONDecodeError:
        raise ValueError("it is not JSON") from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    _shallow(content)
    try:
        json.dumps(content, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ValueError("it holds half a character") from None
    return content


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number in JSON")


def _whole(digits: str) -> int:
    if len(digits) > 100:
        raise ValueError(f"a number has {len(digits)} digits")
    return int(digits)


def _shallow(content: Any) -> None:
    level = [content]
    for _ in range(DEEPEST):
        inner = [each.values() if isinstance(each, dict) else each for each in level if isinstance(each, (dict, list))]
        level = [item for items in inner for item in items]
    if level:
        raise ValueError("it is nested too deeply")


def _check_metrics(listed: Any, fields: Sequence[str], variants: Sequence[str]) -> None:
    if not isinstance(listed, list):
        raise ValueError("its list of metrics is missing")
    for metric in listed:
        if not isinstance(metric, dict) or not set(fields) <= set(metric):
            raise ValueError(f"a metric lacks one of {', '.join(fields)}")
        if not isinstance(metric["name"], str) or str(metric["variant"]) not in variants:
            raise ValueError("a metric has no name, or an unknown variant")
        if not all(_is_number(metric[key]) for key in ("value", "low", "high", "n")):
            raise ValueError(f"the metric {metric['name'][:40]!r} has a value that is no number")
        if not _are_changes(metric["changes"]):
            raise ValueError(f"the metric {metric['name'][:40]!r} has a change that is no number")
        if not isinstance(metric["higher_is_better"], (bool, type(None))) or not isinstance(metric["definition"], dict):
            raise ValueError(f"the metric {metric['name'][:40]!r} has a field of another type")


def _are_changes(value: Any) -> bool:
    """Whether it is a dict of changes, whose values and bounds are numbers."""
    if not isinstance(value, dict) or not all(isinstance(change, dict) for change in value.values()):
        return False
    return all(_is_number(change.get(key)) for change in value.values() for key in ("value", "low", "high"))


def _is_number(value: Any) -> bool:
    """Whether it is nothing or a number of ordinary size."""
    if value is None:
        return True
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < LARGEST
