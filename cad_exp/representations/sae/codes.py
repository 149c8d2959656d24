"""Codes: which latents act on which tokens, and how strongly, in the layout of a sparse matrix by rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy.sparse import csr_matrix
from torch import Tensor


@dataclass(frozen=True)
class Codes:
    """The latents (entries,) int64 of all tokens, one after another, and their values (entries,) fp32.

    starts: (tokens,) int64, the entry at which each token's latents begin.
    """

    latents: Tensor
    values: Tensor
    starts: Tensor

    @classmethod
    def even(cls, latents: Tensor, values: Tensor) -> Codes:
        """Return the codes of tokens that have the same number of latents each: both (tokens, k)."""
        starts = torch.arange(0, latents.numel(), latents.shape[1], device=latents.device)
        return cls(latents.flatten(), values.flatten(), starts)

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def rows(self) -> Tensor:
        """The token (entries,) int64 of each entry."""
        ends = torch.cat([self.starts[1:], self.starts.new_tensor([len(self.latents)])])
        return torch.arange(len(self), device=self.starts.device).repeat_interleave(ends - self.starts)

    def sums(self, vectors: Tensor) -> Tensor:
        """Return for each token the sum of its latents' vectors (width, d), each times its value: (tokens, d)."""
        if not len(self.latents):
            return vectors.new_zeros(len(self), vectors.shape[1])
        summed: Tensor = F.embedding_bag(
            self.latents, vectors, self.starts, mode="sum", per_sample_weights=self.values.to(vectors.dtype)
        )
        return summed

    def acting(self, width: int) -> Tensor:
        """Return on how many tokens each latent acts, (width,) int64: where its value is not 0."""
        return torch.bincount(self.latents[self.values != 0], minlength=width)

    def matrix(self, width: int) -> csr_matrix:
        """Return the codes as a sparse matrix (tokens, width) fp32, without zeros."""
        # a copy: zeros are taken out in place
        found = csr_matrix(self.csr(self.values.float()), shape=(len(self), width), copy=True)
        found.eliminate_zeros()
        return found

    def csr(self, entries: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return entries (one for each latent of a token) as scipy builds a sparse matrix of them."""
        starts = torch.cat([self.starts, self.starts.new_tensor([len(self.latents)])])
        return entries.detach().cpu().numpy(), self.latents.cpu().numpy(), starts.cpu().numpy()


class Gathered:
    """The same entries, sorted by latent: sums over tokens for each latent, without a dense matrix in between."""

    def __init__(self, codes: Codes, width: int):
        if codes.latents.device.type == "cpu":  # a counting sort: many times faster than torch's own
            numbers = torch.arange(len(codes.latents))
            sorted_ = csr_matrix(codes.csr(numbers), shape=(len(codes), width)).tocsc()
            parts = (sorted_.data, sorted_.indices, sorted_.indptr[:-1])
            self.order, self.rows, self.starts = (torch.from_numpy(part).long() for part in parts)
        else:
            self.order = torch.argsort(codes.latents, stable=True)
            self.rows = codes.rows[self.order]
            counts = torch.bincount(codes.latents, minlength=width)
            self.starts = counts.cumsum(0) - counts

    def sums(self, values: Tensor, vectors: Tensor) -> Tensor:
        """Return for each latent the sum over its tokens of their vectors (tokens, d), each times its entry's value.

        values: (entries,) in the order of the codes. Returns (width, d).
        """
        if not len(self.rows):
            return vectors.new_zeros(len(self.starts), vectors.shape[1])
        summed: Tensor = F.embedding_bag(
            self.rows, vectors, self.starts, mode="sum", per_sample_weights=values[self.order]
        )
        return summed
