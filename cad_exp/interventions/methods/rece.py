"""RECE (Gong et al., arXiv 2407.12383): after UCE, find the text vector that brings the concept back, and erase it too.

All in closed form. With W_i the intact and W_i T the edited projections of keys and values, and G = sum_i W_i^T W_i,
every step is one of (D, D) matrices: no projection is touched before the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor

from cad_exp.interventions.edit import Edit
from cad_exp.interventions.methods.projections import closed_form, projections, replace, texts
from cad_exp.interventions.methods.uce import kept_pairs, pairs
from cad_exp.interventions.networks import Networks, weight_of
from cad_exp.models.pipeline import DiffusionModel
from cad_exp.utils.errors import UserError


def rece(
    model: DiffusionModel,
    prompt: str,
    guide: str = "",
    preserve: Sequence[str] = ("",),
    tokens: str = "all",
    epochs: int = 5,
    regularisation: float = 0.1,
    lamb: float = 0.1,
    erase_scale: float = 1.0,
    preserve_scale: float | None = 0.1,
) -> Edit:
    """Run UCE, then `epochs` times take the vectors that regenerate the concept to the guide's as well.

    The regenerating vectors are regularised to zero, as the authors' code does by default; regularisation > 0. All text
    positions take part in the epochs; `tokens` is of the first step, UCE's. The authors keep the epoch with the fewest
    detections on validation images; here the last one stands. meta["residual"]: before each epoch, how far the edited
    model is from the intact one's keys and values at the best regenerating vectors, as a share of their squared length.
    """
    if epochs < 1 or not regularisation > 0:
        raise UserError(f"epochs={epochs}, regularisation={regularisation}: use 1 epoch or more, and more than 0")
    concept, neutral = texts(model, [prompt, guide])
    kept = kept_pairs(model, prompt, preserve, preserve_scale)
    gram = _gram(model)
    transform = closed_form(pairs(model, prompt, guide, preserve, tokens, erase_scale, preserve_scale), lamb)
    residual = []
    for _ in range(epochs):
        found = regenerating(concept, transform, gram, regularisation)
        residual.append(_residual(found, concept, transform, gram))
        transform = transform @ closed_form([(found, neutral, erase_scale), *kept], lamb)
    return replace(model, transform, {"residual": residual})


def regenerating(concept: Tensor, transform: Tensor, gram: Tensor, regularisation: float) -> Tensor:
    """Return the vectors c' (L, D) that bring the concept's vectors c (L, D) back.

    Each minimises sum_i ||W_i T c' - W_i c||^2 + regularisation ||c'||^2.
    """
    edited = transform.T @ gram
    system = edited @ transform + regularisation * torch.eye(len(gram), dtype=gram.dtype)
    solution: Tensor = torch.linalg.solve(system, edited @ concept.T)
    return solution.T


def _residual(found: Tensor, concept: Tensor, transform: Tensor, gram: Tensor) -> float:
    missed = found @ transform.T - concept
    return float(((missed @ gram) * missed).sum() / ((concept @ gram) * concept).sum())


def _gram(model: DiffusionModel) -> Tensor:
    """Return sum_i W_i^T W_i (D, D) fp64 over all projections of keys and values."""
    networks = Networks.of(model)
    weights = [weight_of(networks, name) for name in projections(model.denoiser)]
    return reduce(torch.add, (weight.double().cpu().T @ weight.double().cpu() for weight in weights))
