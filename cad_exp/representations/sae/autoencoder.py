"""The sparse autoencoder: a token becomes a few latents of a dictionary, and these become the token again."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from cad_exp.representations.sae.codes import Codes

NAMES = ("W_enc", "b_enc", "W_dec", "b_dec")


class Dictionary(Protocol):
    """What turns tokens into codes and back: a trained autoencoder, or one of the controls."""

    @property
    def width(self) -> int:
        """Number of latents."""

    def encode(self, x: Tensor) -> Codes:
        """Return the codes of tokens x (tokens, d) fp32."""

    def decode(self, codes: Codes) -> Tensor:
        """Return the tokens (tokens, d) that codes stand for."""


class Selects(Protocol):
    """Says which latents of each token act."""

    def select(self, pre: Tensor) -> Codes:
        """Return the selected latents of pre-activations (tokens, width); values are at least 0."""


@dataclass(frozen=True)
class Autoencoder:
    """z = select(ReLU(W_enc (x - b_dec) + b_enc)), x' = W_dec z + b_dec; in the units of x, whatever training used.

    W_enc, W_dec: (width, d) fp32, one row each latent. b_enc: (width,); b_dec: (d,). selects: which latents act.
    """

    W_enc: Tensor
    b_enc: Tensor
    W_dec: Tensor
    b_dec: Tensor
    selects: Selects

    @property
    def width(self) -> int:
        """Number of latents."""
        return len(self.W_enc)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The weights by name."""
        return {name: getattr(self, name) for name in NAMES}

    def pre(self, x: Tensor) -> Tensor:
        """Return what latents are selected by, (tokens, width), for tokens x (tokens, d)."""
        return torch.addmm(self.b_enc, x - self.b_dec, self.W_enc.T)

    def encode(self, x: Tensor) -> Codes:
        """Return the codes of tokens x (tokens, d)."""
        return self.selects.select(self.pre(x))

    def decode(self, codes: Codes) -> Tensor:
        """Return the tokens (tokens, d) that codes stand for."""
        return codes.sums(self.W_dec) + self.b_dec

    def with_tensors(self, tensors: dict[str, Tensor], **changed: Any) -> Autoencoder:
        """Return the same kind of autoencoder with other weights."""
        weights: dict[str, Any] = {name: tensors[name] for name in NAMES}
        return replace(self, **weights, **changed)

    def rescaled(self, mean: Tensor, scale: float) -> Autoencoder:
        """Return the autoencoder of x that equals this one of (x - mean) / scale, token by token.

        Latents keep their values: the decoder's rows have length `scale` then.
        """
        return replace(self, W_enc=self.W_enc / scale, W_dec=self.W_dec * scale, b_dec=mean + scale * self.b_dec)


def initial(d: int, width: int, selects: Selects, seed: int) -> Autoencoder:
    """Return an untrained autoencoder: random unit directions, and an encoder that is the decoder's transpose.

    So no latent is dead at the start (Gao et al. 2406.04093, A.1).
    """
    directions = torch.randn(width, d, generator=torch.Generator().manual_seed(seed))
    directions /= directions.norm(dim=1, keepdim=True)
    return Autoencoder(directions.clone(), torch.zeros(width), directions, torch.zeros(d), selects)


def balanced(start: Autoencoder, x: Tensor) -> Autoencoder:
    """Return an untrained autoencoder whose encoder is scaled so that tokens x (tokens, d) keep their length.

    Directions that are not orthogonal add up to too much: without this, a short training begins by shrinking.
    """
    made = start.decode(start.encode(x)) - start.b_dec
    gain = (made * (x - start.b_dec)).sum() / made.square().sum().clamp_min(torch.finfo(x.dtype).tiny)
    return start.with_tensors({**start.tensors, "W_enc": start.W_enc * gain})
