"""What a settled config must not ask: edits that change nothing, prompts with nothing to look for. No torch."""

from __future__ import annotations

import math
from typing import Any

from cad_exp.utils.errors import UserError

Config = dict[str, Any]


def check_edit(edit: Config) -> None:
    """UserError for an edit whose sign is another edit's, or that can change nothing whatever the scores are."""
    name, sign = edit["name"], edit["sign"]
    wanted = {"none": None, "amplify": "negative"}.get(name, "positive")
    if sign != wanted:
        other = {"negative": "edit=amplify", "positive": "edit=erase"}.get(sign, "another edit")
        takes = f"takes {wanted} components" if wanted else "takes no components"
        raise UserError(f"edit={name} {takes}, so edit.sign={sign} does not go with it: {other} takes those")
    for key in ("factor", "ratio", "count"):
        if edit[key] is not None and (isinstance(edit[key], bool) or not isinstance(edit[key], (int, float))):
            raise UserError(f"edit.{key}={edit[key]} is no number")
    _check_factor(edit["factor"])
    _check_amount(edit["ratio"], edit["count"], edit["scope"])
    if "guide" in edit and _words(edit["prompt"]) in ("", _words(edit["guide"])):
        raise UserError(
            f"edit={name} has nothing to erase: edit.prompt={edit['prompt']!r} is empty or the same text as edit.guide"
        )


def _check_factor(factor: Any) -> None:
    if factor is not None and (factor == 1 or not math.isfinite(factor)):
        what = "leaves every component as it is" if factor == 1 else "is no number"
        raise UserError(
            f"edit.factor={factor:g} {what}: 0 switches components off, -1 reverses them, edit=none edits none"
        )


def _check_amount(ratio: Any, count: Any, scope: Any) -> None:
    """The rest of what `edit.select` refuses, before any work."""
    if ratio is not None and count is not None:
        raise UserError(f"edit.ratio={ratio} and edit.count={count} both say how much to edit: give one of them")
    if ratio is not None and not 0 < ratio <= 1:
        raise UserError(f"edit.ratio={ratio} is out of range: use a number above 0 and up to 1, or edit=none")
    if count is not None and count < 1:
        raise UserError(f"edit.count={count} is out of range: use 1 or more, or edit=none")
    if count is not None and scope != "global":
        raise UserError(
            f"edit.count={count} counts over the whole model, not per {scope}: "
            "add granularity.scope=global, or give edit.ratio instead"
        )


def check_concept(concept: Config) -> None:
    """UserError where there is nothing to look for: no prompt, or one that is its own base prompt.

    White space does not count. What only the model's tokenizer finds to be the same is refused later (stages).
    """
    prompt, base = concept["prompt"], concept["base_prompt"]
    if not _words(prompt):
        raise UserError('concept.prompt is empty, so there is nothing to look for: give concept.prompt="..."')
    if _words(prompt) == _words(base):
        raise UserError(
            f"concept.prompt and concept.base_prompt are both {ascii(_words(prompt)[:60])}, so there is nothing to "
            'look for: concept.base_prompt="" compares with no prompt at all'
        )


def _words(text: Any) -> str:
    return " ".join(str("" if text is None else text).split())
