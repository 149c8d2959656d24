"""Reading a results.json that anybody may have written or damaged: its content in the types that readers rely on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from cad_exp.config.validation import brief
from cad_exp.reporting.schema import ResultFile

MOST_BYTES = 50_000_000
DEEPEST = 50  # levels of nesting; ours has six
KINDS = {  # what an entry should be, by pydantic's name of the error
    "model_type": "a table",
    "dict_type": "a table",
    "list_type": "a list",
    "string_type": "a text",
    "bool_type": "true or false",
    "float_type": "a number",
    "int_type": "a whole number",
    "literal_error": "a version that this cad_exp reads",
    "greater_than_equal": "a number of ordinary size",
    "less_than_equal": "a number of ordinary size",
}


def check(content: Any) -> None:
    """ValueError that names the first entry of a results.json that is not as its schema says."""
    try:
        ResultFile.model_validate(content)
    except ValidationError as error:
        raise ValueError(_sentence(error.errors(include_url=False)[0])) from None


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


def _sentence(error: ErrorDetails) -> str:
    """Write one error of pydantic as a person reads it: `metrics.3.value is 'much', not a number`."""
    key = brief(".".join(map(str, error["loc"]))) or "the file"
    if error["type"] == "missing":
        return f"{key} is missing"
    if error["type"] == "extra_forbidden":
        return f"{key} is no entry of the schema"
    what = KINDS.get(error["type"]) or error["msg"].removeprefix("Value error, not ")
    return f"{key} is {brief(error['input'])!r}, not {what}"
