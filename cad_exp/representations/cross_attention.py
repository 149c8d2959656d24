"""Where the image attends to the text: the attention of every position to every token, in all heads and layers.

The network itself makes queries and keys; here they are watched, and softmax(q k^T / sqrt(d)) is done once more. So the
forward pass stays as it is, and nothing has to be undone. In a UNet this is cross-attention (its probabilities over the
tokens add up to 1). In Stable Diffusion 3's joint attention the image attends to itself as well: the rows of the image,
the columns of the text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor

from cad_exp.interventions.gating import OUTPUT, Tap, watched
from cad_exp.interventions.networks import Networks
from cad_exp.interventions.spaces.sites import CROSS, JOINT, find_sites
from cad_exp.models.families.condition import Condition
from cad_exp.models.pipeline import DiffusionModel
from cad_exp.representations import unread
from cad_exp.utils.errors import UserError

MASK = "mask"  # the extra of a condition that says which tokens are there


@dataclass(frozen=True)
class Attended:
    """The attention of an image's positions to the tokens of its text.

    logits: (B, heads, positions, tokens) fp32, q k / sqrt(d); -inf for tokens that are masked. elsewhere: (B, heads,
    positions, 1), log-sum-exp of the logits of all else that is attended to; None: nothing else.
    """

    logits: Tensor
    elsewhere: Tensor | None = None

    @property
    def probabilities(self) -> Tensor:
        """(B, heads, positions, tokens) in 0..1; they add up to 1 over the tokens where nothing else is attended to."""
        total = self.logits.logsumexp(-1, keepdim=True)
        if self.elsewhere is not None:
            total = torch.logaddexp(total, self.elsewhere)
        found: Tensor = (self.logits - total).exp()
        return found


@dataclass(frozen=True)
class Place:
    """One attention of image to text: where its queries and keys are, and those of the image itself if it is joint."""

    name: str
    heads: int
    queries: Tap
    keys: Tap
    own_keys: Tap | None = None

    @property
    def taps(self) -> list[Tap]:
        """All that is watched."""
        return [self.queries, self.keys] + ([self.own_keys] if self.own_keys else [])

    def attended(self, seen: Mapping[Tap, Tensor], mask: Tensor | None) -> Attended:
        """Return the attention of one forward pass; mask: (B, tokens), 0 for tokens that are not there."""
        queries = self._by_head(seen[self.queries])
        logits = _logits(queries, self._by_head(seen[self.keys]))
        if mask is not None:
            logits = logits.masked_fill(mask[:, None, None, :] == 0, -torch.inf)
        if self.own_keys is None:
            return Attended(logits)
        return Attended(logits, _logits(queries, self._by_head(seen[self.own_keys])).logsumexp(-1, keepdim=True))

    def _by_head(self, x: Tensor) -> Tensor:
        """(B, length, heads d) to (B, heads, length, d); what a norm of every head returns is so already."""
        x = x.float()
        return x if x.ndim == 4 else x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


def _logits(queries: Tensor, keys: Tensor) -> Tensor:
    found: Tensor = queries @ keys.transpose(-1, -2) * queries.shape[-1] ** -0.5
    return found


def attentions_to_text(model: DiffusionModel) -> list[Place]:
    """Return every attention of image to text in forward order.

    Raises:
        UserError: a model that has none that can be read; FLUX turns queries and keys by their positions first.
    """
    networks, found = Networks.of(model), dict[str, Place]()
    for site in find_sites(model.denoiser):
        name, _, last = site.module.rpartition(".to_out")
        if site.kind not in (CROSS, JOINT) or not last:
            continue
        module: Any = networks.get_submodule(name)
        if isinstance(module, Attention):
            found[name] = _place(name, module, joint=site.kind == JOINT)
    if not found:
        raise UserError(unread(model.name))
    return list(found.values())


def _place(name: str, module: Any, joint: bool) -> Place:
    def tap(norm: str, projection: str) -> Tap:
        return Tap(f"{name}.{norm if getattr(module, norm, None) is not None else projection}", OUTPUT)

    own = tap("norm_k", "to_k")
    keys = tap("norm_added_k", "add_k_proj") if joint else own
    return Place(name, module.heads, tap("norm_q", "to_q"), keys, own if joint else None)


@torch.no_grad()
def attend(
    model: DiffusionModel,
    x: Tensor,
    t: Tensor,
    condition: Condition,
    reduce: Callable[[Attended], Tensor],
    places: Sequence[Place] | None = None,
) -> tuple[Tensor, list[Tensor]]:
    """Return the prediction (B, C, h, w) of one forward pass, and what `reduce` makes of each place's attention.

    Args:
        model: whose denoiser runs once.
        x: noisy latents (B, C, h, w).
        t: their timesteps (B,).
        condition: what the prompts tell the denoiser, B rows or one for all.
        reduce: makes something smaller of an attention; one place at a time is in memory.
        places: as `attentions_to_text` returns them; None: all.

    Raises:
        UserError: a model whose attention to text cannot be read.
    """
    wanted = attentions_to_text(model) if places is None else places
    seen: dict[Tap, Tensor] = {}
    with watched(Networks.of(model), [tap for place in wanted for tap in place.taps], seen.__setitem__):
        prediction = model.predict(x, t, condition)
    mask = condition.expand(len(x)).extras.get(MASK)
    mask = None if mask is None else mask.to(prediction.device)
    return prediction, [reduce(place.attended(seen, mask)) for place in wanted]


def word_tokens(tokenizer: Any, prompt: str, word: str) -> list[int]:
    """Return which tokens of a prompt belong to a word, or to several words in a row: numbers from 0.

    Raises:
        UserError: the words do not stand in the prompt, or beyond the tokens that the model reads.
    """
    own = tokenizer(word, add_special_tokens=False)["input_ids"]
    length = tokenizer.model_max_length
    told = tokenizer(prompt, truncation=True, max_length=length)["input_ids"]
    for start in range(len(told) - len(own) + 1):
        if own and told[start : start + len(own)] == own:
            return list(range(start, start + len(own)))
    raise UserError(f"the prompt '{prompt}' has no word '{word}' that the model reads: put it in, or near its start")


def prompt_tokens(tokenizer: Any, prompt: str) -> list[int]:
    """Return which tokens a prompt's own words are, without start, end and padding: numbers from 0."""
    own = tokenizer(prompt, truncation=True, max_length=tokenizer.model_max_length)["input_ids"]
    special = set(tokenizer.all_special_ids)
    return [number for number, token in enumerate(own) if token not in special]
