"""Unified Concept Editing (Gandikota et al., arXiv 2308.14761): keys and values of a concept become a guide's."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from cad_exp.interventions.edit import Edit
from cad_exp.interventions.methods.projections import closed_form, last_word, replace, texts
from cad_exp.models.pipeline import DiffusionModel
from cad_exp.utils.errors import UserError, choose

TOKENS = ("subject", "last", "all")
Pair = tuple[Tensor, Tensor, float]


def uce(
    model: DiffusionModel,
    prompt: str,
    guide: str = "",
    preserve: Sequence[str] = ("",),
    tokens: str = "subject",
    lamb: float = 0.1,
    erase_scale: float = 1.0,
    preserve_scale: float | None = None,
) -> Edit:
    """Make every cross-attention's keys and values of `prompt` those of `guide`, in closed form (eq. 7 of the paper).

    tokens: which text positions are erased: `subject` from the prompt's last word to the end, aligned with the guide's
    (the paper's code), `last` the last word alone (the authors' later code), `all` every position (RECE's code).
    preserve: prompts whose keys and values stay, weighted by preserve_scale; None: max(0.1, 1 / number), as the
    paper's code. lamb > 0 weighs the old weights. Text that enters elsewhere (SDXL's pooled state) stays.
    """
    return replace(
        model, closed_form(pairs(model, prompt, guide, preserve, tokens, erase_scale, preserve_scale), lamb), {}
    )


def pairs(
    model: DiffusionModel,
    prompt: str,
    guide: str,
    preserve: Sequence[str],
    tokens: str,
    erase_scale: float,
    preserve_scale: float | None,
) -> list[Pair]:
    """Return what `closed_form` needs: the concept's vectors with the guide's as targets, then what is preserved."""
    kept = kept_pairs(model, prompt, preserve, preserve_scale)
    old, new = texts(model, [prompt, guide])
    first, second = positions(model, prompt, guide, tokens, len(old))
    return [(old[first], new[second], erase_scale), *kept]


def kept_pairs(model: DiffusionModel, prompt: str, preserve: Sequence[str], scale: float | None) -> list[Pair]:
    """Return pairs that keep the prompts of `preserve`, at all positions. UserError if the concept is among them."""
    if prompt in preserve:
        raise UserError(f"edit.preserve holds '{prompt}', which is to be erased: leave it out")
    scale = max(0.1, 1 / max(1, len(preserve))) if scale is None else scale
    return [(found, found, scale) for found in texts(model, list(preserve))]


def positions(model: DiffusionModel, prompt: str, guide: str, tokens: str, length: int) -> tuple[slice, slice]:
    """Return the text positions of the prompt that are erased, and those of the guide that stand for them."""
    choose(tokens, TOKENS, "edit.tokens")
    if tokens == "all":
        return slice(length), slice(length)
    first, second = last_word(model, prompt), last_word(model, guide)
    number = 1 if tokens == "last" else length - max(first, second)
    return slice(first, first + number), slice(second, second + number)
