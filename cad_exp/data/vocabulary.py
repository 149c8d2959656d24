"""Words that a model never learned, where it says which it knows: its tokenizer takes others apart into letters."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable
from typing import Any

from cad_exp.data.requests import ImageRequest
from cad_exp.models.sources import MODELS
from cad_exp.utils import console

FUNCTION = frozenset("a an the of in on with and without by".split())  # words without a picture of their own
MOST = 5  # words that the line names


def learned(model: str) -> frozenset[str] | None:
    """Return every word that a model was trained with, by `model.path`; None where it does not say."""
    if model not in MODELS:
        return None
    captions = MODELS.get(model).captions()
    return None if captions is None else frozenset(word for caption in captions for word in _words(caption))


def unknown(prompt: str, known: Collection[str]) -> list[str]:
    """Return the words of a prompt that are not known, in their order; function words and punctuation are none."""
    return [word for word in dict.fromkeys(_words(prompt)) if word not in known and word not in FUNCTION]


def warn(config: dict[str, Any], requests: Iterable[ImageRequest]) -> None:
    """Say in one line which words of this run's prompts its model never learned; nothing where it does not say."""
    known = learned(config["model"]["path"])
    if known is None:
        return
    concept = config["concept"]
    prompts = dict.fromkeys([concept["prompt"], concept["base_prompt"], *(request.prompt for request in requests)])
    strange = {prompt: words for prompt in prompts if (words := unknown(prompt, known))}
    if strange:
        counted = Counter(word for words in strange.values() for word in words)
        named = ", ".join(f"'{word}'" for word, _ in counted.most_common(MOST))
        more = f" and {len(counted) - MOST} others" if len(counted) > MOST else ""
        what = f"{config['model']['path']} never learned {named}{more}, so {len(strange)} of {len(prompts)} prompts"
        console.say(f"  {what} ask for what it cannot draw", style="yellow")


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower().replace("_", " "))
