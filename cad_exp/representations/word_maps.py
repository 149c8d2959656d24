"""Word maps: where an image attends to one word of its prompt (DAAM, arXiv 2210.04885; VPD, arXiv 2303.02153).

1. Noise the image's latents, with noise of its own.
2. Run the network under a prompt with the word, and read the cross-attention probabilities of the word's tokens.
3. Average over heads and tokens, and bring every layer's map to the finest layer's positions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from cad_exp.models.pipeline import DiffusionModel
from cad_exp.representations.activations import noise_of
from cad_exp.representations.cross_attention import Attended, attend, attentions_to_text, word_tokens


@torch.no_grad()
def word_maps(
    model: DiffusionModel,
    latents: Tensor,
    images: Sequence[int],
    prompts: Sequence[str],
    words: Sequence[str],
    timesteps: Sequence[int],
    seed: int,
    batch_size: int = 64,
    tick: Callable[[int], Any] = lambda done: None,
) -> Tensor:
    """Return (N, timesteps, layers, h, w) fp32 on the CPU.

    Args:
        model: whose attention to text is read.
        latents: clean latents (N, C, h, w).
        images: the images' numbers (N,), from which noise is seeded, as for activations.
        prompts: (N,) one for each image.
        words: (N,) of each prompt.
        timesteps: of the noise.
        seed: of the noise.
        batch_size: rows of a forward pass.
        tick: called with the rows done since its last call.

    Raises:
        UserError: a word that its prompt does not hold, or a model whose attention to text cannot be read.
    """
    places, different = attentions_to_text(model), list(dict.fromkeys(prompts))
    conditions = model.encode(different)
    told = torch.tensor([different.index(prompt) for prompt in prompts])
    tokens = [word_tokens(model.pipe.tokenizer, *pair) for pair in zip(prompts, words, strict=True)]
    parts = []
    for start in range(0, len(latents), batch_size):
        own, found = range(start, min(start + batch_size, len(latents))), []
        for t in timesteps:
            noise = torch.stack([noise_of(latents.shape[1:], seed, int(images[n]), t, 0) for n in own])
            at = torch.full((len(own),), t)
            x = model.add_noise(latents[list(own)].cpu(), noise, at)
            reduce = _of_words([tokens[n] for n in own])
            found.append(_alike(attend(model, x, at, conditions[told[list(own)]], reduce, places)[1]))
            tick(len(own))
        parts.append(torch.stack(found, 1))
    return torch.cat(parts)


def _of_words(tokens: Sequence[Sequence[int]]) -> Callable[[Attended], Tensor]:
    """Return what makes (B, positions) of an attention: the mean over heads and each row's own tokens."""

    def reduce(attended: Attended) -> Tensor:
        by_token = attended.probabilities.mean(1)
        return torch.stack([row[:, list(own)].mean(-1) for row, own in zip(by_token, tokens, strict=True)]).cpu()

    return reduce


def _alike(maps: Sequence[Tensor]) -> Tensor:
    """Bring maps (B, positions) of several sizes to the finest: (B, layers, h, w)."""
    sides = [int(round(each.shape[1] ** 0.5)) for each in maps]
    square = [each.unflatten(1, (side, side))[:, None] for each, side in zip(maps, sides, strict=True)]
    size = (max(sides), max(sides))
    return torch.cat([F.interpolate(each, size=size, mode="bilinear", align_corners=False) for each in square], 1)
