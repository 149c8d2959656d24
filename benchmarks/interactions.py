"""Row: interactions of all pairs by gradients, against the ablation of every pair."""

from collections.abc import Iterator

import torch
from torch import Tensor

from benchmarks.attribution import PROMPT
from benchmarks.measure import Bench, Row, alternate, row
from cad_exp import ComponentSpace, find_sites, make_granularity, make_objective, sample_trajectory
from cad_exp.attribution.game import Game
from cad_exp.attribution.interactions.second_order import second_order


def rows(bench: Bench) -> Iterator[Row]:
    """Heads, of `erase`. The peer ablates as quickly as this package can: many pairs in a forward pass."""
    model = bench.load()
    space = make_granularity("layer" if bench.quick else "head").on(find_sites(model.denoiser))
    latents = sample_trajectory(model, PROMPT, "", seeds=[0], steps=bench.size(4, 2))
    objective = make_objective("erase", model, latents, batch_size=32)
    game = Game(objective, space)
    found = second_order(game, few=space.n).pairs
    pairs = found[*torch.triu_indices(space.n, space.n, 1)]
    exact = second_differences(game, objective.values(space, ablations(space)).double())
    alike = torch.corrcoef(torch.stack([pairs, exact]))[0, 1]
    ours, peer = alternate(
        lambda: second_order(game, few=space.n),
        lambda: objective.values(space, ablations(space)),
        repeats=bench.repeats,
    )
    note = f"{space.n} {space.name}s, {len(exact):,} pairs, {len(latents)} noisy latents; correlation {alike:.3f}"
    yield row("interactions of all pairs", "s", ours, peer, peer / ours, ">= 3", note)


def ablations(space: ComponentSpace) -> Tensor:
    """(A, n) gates: every pair, then every component alone."""
    one, other = torch.triu_indices(space.n, space.n, 1)
    gates = torch.ones(len(one) + space.n, space.n)
    number = torch.arange(len(one))
    gates[number, one] = gates[number, other] = 0
    gates[len(one) :] -= torch.eye(space.n)
    return gates


def second_differences(game: Game, values: Tensor) -> Tensor:
    """J(neither) - J(no i) - J(no j) + J of every pair, by the values of these ablations."""
    one, other = torch.triu_indices(game.n, game.n, 1)
    alone = values[len(one) :]
    return values[: len(one)] - alone[one] - alone[other] + game.intact
