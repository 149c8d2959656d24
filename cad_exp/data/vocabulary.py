"""Words that the embedded models never learned: their tokenizer takes such a word apart into letters."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from functools import cache
from typing import Any

from cad_exp.data.requests import Shot
from cad_exp.utils import console

EMBEDDED = ("mini", "mini_dit")  # as model.path
FUNCTION = frozenset("a an the of in on with and without by".split())  # words without a picture of their own
MOST = 5  # words that the line names


@cache
def learned() -> frozenset[str]:
    """Every word of the captions that the embedded models were trained with, in small letters."""
    from cad_exp.mini.world import all_captions

    return frozenset(word for caption in all_captions() for word in _words(caption))


def unknown(prompt: str) -> list[str]:
    """Return the words of a prompt that no caption holds, in their order; function words and punctuation are none."""
    return [word for word in dict.fromkeys(_words(prompt)) if word not in learned() | FUNCTION]


def warn(config: dict[str, Any], shots: Iterable[Shot]) -> None:
    """Say in one line which words of this run's prompts an embedded model never learned; nothing for other models."""
    if config["model"]["path"] not in EMBEDDED:
        return
    concept = config["concept"]
    prompts = dict.fromkeys([concept["prompt"], concept["base_prompt"], *(shot.prompt for shot in shots)])
    strange = {prompt: words for prompt in prompts if (words := unknown(prompt))}
    if strange:
        counted = Counter(word for words in strange.values() for word in words)
        named = ", ".join(f"'{word}'" for word, _ in counted.most_common(MOST))
        more = f" and {len(counted) - MOST} others" if len(counted) > MOST else ""
        what = f"{config['model']['path']} never learned {named}{more}, so {len(strange)} of {len(prompts)} prompts"
        console.say(f"  {what} ask for what it cannot draw", style="yellow")


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower().replace("_", " "))
