"""The loss of a sparse autoencoder and its gradient, worked out by hand on the selected latents alone.

1. Codes are selected from the pre-activations; what is not selected has no gradient.
2. Every prefix m of the dictionary reconstructs x_m = W_dec[:m] z[:m] + b_dec; its error weighs 1 / prefixes.
3. With g_m the gradient at x_m, a latent j gets the sum of g_m over the prefixes that hold it:
   dz_j = <g, W_dec_j>, dW_dec_j = sum_tokens z_j g, dW_enc_j = sum_tokens dz_j (x - b_dec), db_enc_j = sum_tokens dz_j.
4. b_dec stands on both sides: db_dec = sum g - W_enc^T db_enc.
5. AuxK (Gao et al. 2406.04093, A.2): latents that are dead for long reconstruct what is left, x - x', held constant;
   of a quarter of the batch, which says as much and costs little.

Losses are shares of the batch's variance. Autograd gives the same numbers (a test holds them together); by hand they
cost a quarter, for neither dense codes nor a dense product with the decoder are ever made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cad_exp.representations.sae.autoencoder import Autoencoder
from cad_exp.representations.sae.codes import Codes, Gathered
from cad_exp.representations.sae.selection import largest

Gradients = dict[str, Tensor]
AUX_PART = 4  # AuxK sees one token in so many


@dataclass(frozen=True)
class Outcome:
    """What one batch says. loss: share of the variance that is left; aux: of AuxK, unweighted; acted: (width,) bool."""

    loss: float
    aux: float
    acted: Tensor
    gradients: Gradients


@dataclass(frozen=True)
class Aux:
    """AuxK: `weight` of its loss, at most `k` dead latents a token, which of the latents are dead (width,) bool."""

    weight: float
    k: int
    dead: Tensor


@torch.no_grad()
def gradients(autoencoder: Autoencoder, x: Tensor, prefixes: Sequence[int], aux: Aux | None = None) -> Outcome:
    """Return the loss on tokens x (tokens, d), and its gradient with respect to all weights.

    prefixes: rising lengths of parts of the dictionary that reconstruct alone; the last is its width.
    """
    pre, variance = autoencoder.pre(x), _variance(x)
    codes, unit = autoencoder.selects.select(pre), 2 / variance / len(prefixes)
    centred, rest = x - autoencoder.b_dec, x.new_zeros(x.shape)
    found, loss, slopes = _zeros(autoencoder), 0.0, []
    groups = [_part(codes, low, high) for low, high in zip((0, *prefixes[:-1]), prefixes, strict=True)]
    summed = x.new_zeros(x.shape)
    for group in groups:
        summed = summed + group.sums(autoencoder.W_dec)
        rest = centred - summed
        loss += float(rest.square().sum()) / variance / len(prefixes)
        slopes.append(rest * -unit)
    slope = x.new_zeros(x.shape)
    for group, own in reversed(list(zip(groups, slopes, strict=True))):
        slope = slope + own
        found["b_dec"] += own.sum(0)
        _backward(autoencoder, group, slope, centred, found)
    spare = _auxiliary(autoencoder, pre, centred, rest, aux, variance, found) if aux is not None else 0.0
    found["b_dec"] -= found["b_enc"] @ autoencoder.W_enc
    return Outcome(loss, spare, codes.acting(autoencoder.width) > 0, found)


def _backward(autoencoder: Autoencoder, codes: Codes, slope: Tensor, centred: Tensor, found: Gradients) -> None:
    """Add what the gradient `slope` (tokens, d) at a reconstruction by these codes makes of the weights."""
    if not len(codes.latents):
        return
    with torch.enable_grad():
        values = codes.values.detach().requires_grad_()
        summed = Codes(codes.latents, values, codes.starts).sums(autoencoder.W_dec.detach())
    (back,) = torch.autograd.grad(summed, values, slope)
    back = torch.where(codes.values > 0, back, 0.0)  # ReLU
    gathered = Gathered(codes, autoencoder.width)
    found["W_dec"] += gathered.sums(codes.values, slope)
    found["W_enc"] += gathered.sums(back, centred)
    found["b_enc"].index_add_(0, codes.latents, back)


def _auxiliary(
    autoencoder: Autoencoder,
    pre: Tensor,
    centred: Tensor,
    rest: Tensor,
    aux: Aux,
    variance: float,
    found: Gradients,
) -> float:
    dead = aux.dead.nonzero().flatten()
    if not len(dead):
        return 0.0
    part = slice(0, max(1, len(pre) // AUX_PART))
    centred, rest, variance = centred[part], rest[part], variance * len(pre[part]) / len(pre)
    values, decoder = pre[part][:, dead].relu(), autoencoder.W_dec[dead]
    if len(dead) > aux.k:
        kept = largest(values, aux.k)
        values = torch.zeros_like(values).scatter_(1, kept, values.gather(1, kept))
    error = values @ decoder - rest
    weight = aux.weight * min(1.0, len(dead) / aux.k)  # few dead latents cannot do the work of k
    slope = error * (2 * weight / variance)
    back = torch.where(values > 0, slope @ decoder.T, 0.0)
    found["W_dec"].index_add_(0, dead, values.T @ slope)
    found["W_enc"].index_add_(0, dead, back.T @ centred)
    found["b_enc"].index_add_(0, dead, back.sum(0))
    return float(error.square().sum()) / variance


def _part(codes: Codes, low: int, high: int) -> Codes:
    """Return the entries of the latents from `low` to before `high`."""
    kept = (codes.latents >= low) & (codes.latents < high)
    if bool(kept.all()):
        return codes
    counts = torch.bincount(codes.rows[kept], minlength=len(codes))
    return Codes(codes.latents[kept], codes.values[kept], counts.cumsum(0) - counts)


def _variance(x: Tensor) -> float:
    return max(float((x - x.mean(0)).square().sum()), torch.finfo(x.dtype).tiny)


def _zeros(autoencoder: Autoencoder) -> Gradients:
    return {name: torch.zeros_like(tensor) for name, tensor in autoencoder.tensors.items()}
