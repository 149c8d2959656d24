"""Random ablation patterns in which every component is ablated equally often."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from cad_exp.utils.errors import UserError


def stratified(n: int, rates: Sequence[float], number: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Yield `number` gates (n,) of 0 and 1, one after the other; the rates in (0, 1) take turns.

    Each pattern takes its share from a stream of shuffled decks of all components, so no component is ablated twice
    before all others have been ablated once. Raises UserError for a rate that is out of range.
    """
    if not rates or not all(0 < rate < 1 for rate in rates):
        raise UserError(f"ablation rates {list(rates)} are out of range: give one or more between 0 and 1")
    deck = torch.empty(0, dtype=torch.long)
    for turn in range(number):
        # At least one is ablated and one kept, also among a handful of components.
        share = min(max(round(rates[turn % len(rates)] * n), 1), max(n - 1, 1))
        drawn = deck[:share]
        deck = deck[share:]
        if len(drawn) < share:  # a new deck, with what this pattern has already taken at its end
            fresh = torch.randperm(n, generator=generator)
            used = torch.isin(fresh, drawn)
            fresh, missing = torch.cat([fresh[~used], fresh[used]]), share - len(drawn)
            drawn, deck = torch.cat([drawn, fresh[:missing]]), fresh[missing:]
        yield torch.ones(n).index_fill_(0, drawn, 0.0)


def balanced(n: int, rate: float, number: int, generator: torch.Generator) -> Tensor:
    """Draw gates (number, n) bool: independent columns, each with a share `rate` in (0, 1) of ablated rows, False.

    At least one row of each column is ablated. Unlike in `stratified`, the rows differ in size, as independent draws.
    Raises UserError for a rate that is out of range.
    """
    if not 0 < rate < 1:
        raise UserError(f"ablation rate {rate} is out of range: give one between 0 and 1")
    share, parts = max(round(rate * number), 1), []
    for width in [part.numel() for part in torch.empty(n).split(4096)]:
        parts.append(torch.rand(number, width, generator=generator).argsort(0).argsort(0) >= share)
    return torch.cat(parts, 1)
