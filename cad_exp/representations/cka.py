"""Centred kernel alignment: how alike two sets of features order the same images, whatever their number or rotation.

1. K = X X^T, the images' inner products, with an empty diagonal.
2. HSIC_1(K, L) = [tr(K L) + 1'K1 1'L1 / ((n-1)(n-2)) - 2 / (n-2) 1'K L1] / (n (n-3)), which does not grow with the
   number of features (Song et al., JMLR 13, 2012, eq. 5).
3. CKA = HSIC_1(K, L) / sqrt(HSIC_1(K, K) HSIC_1(L, L)): 1 for the same order, 0 for independent features
   (Kornblith et al., arXiv 1905.00414; debiased as in Nguyen et al., 2010.15327).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Alignment:
    """Linear CKA (A, B) of two lists of features, and without each image (A, B, n)."""

    values: np.ndarray
    without: np.ndarray


def alignment(first: Sequence[np.ndarray], second: Sequence[np.ndarray]) -> Alignment:
    """Return the debiased linear CKA of every pair.

    Args:
        first: A arrays (n, F) of features of the same images, at least 5; F may differ.
        second: B of them.
    """
    a, b = (np.stack([_gram(each) for each in part]) for part in (first, second))
    both, of_a, of_b = _cross(a, b), _own(a), _own(b)
    scale = np.sqrt(np.maximum(of_a[:, None] * of_b[None], 1e-300))  # of features that never change nothing is known
    found = np.where(scale > 1e-12, both / np.maximum(scale, 1e-12), 0.0)
    return Alignment(found[..., 0], found[..., 1:])


def _gram(features: np.ndarray) -> np.ndarray:
    """Return inner products (n, n) of centred features without the diagonal, scaled so that they are about 1."""
    centred = np.asarray(features, np.float64) - features.mean(0)
    products = centred @ centred.T
    np.fill_diagonal(products, 0.0)
    products /= max(float(np.sqrt((products**2).mean())), 1e-150)
    return np.asarray(products)


def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return HSIC_1 (A, B, 1 + n) of matrices (A, n, n) and (B, n, n): of all images, then without each of them."""
    return np.stack([[_hsic(one, other) for other in b] for one in a])


def _own(a: np.ndarray) -> np.ndarray:
    return np.stack([_hsic(one, one) for one in a])


def _hsic(k: np.ndarray, m: np.ndarray) -> np.ndarray:
    """Return HSIC_1 (1 + n): the three sums of all images, and what is left of them without image i."""
    n = len(k)
    rows_k, rows_m, shared = k.sum(1), m.sum(1), (k * m).sum(1)
    trace, sums, chain = shared.sum(), (rows_k.sum(), rows_m.sum()), rows_k @ rows_m
    traces = trace - 2 * shared
    products = (sums[0] - 2 * rows_k) * (sums[1] - 2 * rows_m)
    chains = chain - rows_k * rows_m - m @ rows_k - k @ rows_m + shared
    whole = _joined(trace, sums[0] * sums[1], chain, n)
    return np.concatenate([[whole], _joined(traces, products, chains, n - 1)])


def _joined(trace: np.ndarray, products: np.ndarray, chain: np.ndarray, n: int) -> np.ndarray:
    found: np.ndarray = (trace + products / ((n - 1) * (n - 2)) - 2 / (n - 2) * chain) / (n * (n - 3))
    return found


def blocks(values: np.ndarray, least: float) -> list[list[int]]:
    """Cut a sequence of layers into blocks of alike neighbours: (L, L) similarities to lists of layers.

    The two neighbouring blocks with the highest mean similarity between their layers join, until it is below `least`.
    """
    found = [[layer] for layer in range(len(values))]
    while len(found) > 1:
        between = [float(values[np.ix_(one, other)].mean()) for one, other in zip(found, found[1:], strict=False)]
        best = int(np.argmax(between))
        if between[best] < least:
            break
        found[best : best + 2] = [found[best] + found[best + 1]]
    return found
