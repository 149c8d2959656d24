"""Row 3: true effects of single ablations, many per forward pass against one per forward pass."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from benchmarks.attribution import PROMPT
from benchmarks.measure import Bench, Row, alternate, row
from cad_exp import ComponentSpace, Objective, find_sites, make_granularity, make_objective, sample_trajectory


def rows(bench: Bench) -> Iterator[Row]:
    """All heads where the network has 256 of them, else neurons drawn at random; `batch_size` rows per pass."""
    model = bench.load()
    sites, count = find_sites(model.denoiser), bench.size(256, 6)
    latents = sample_trajectory(model, PROMPT, "", seeds=[0], steps=bench.size(4, 2))
    name = "head" if make_granularity("head").on(sites).n >= count else "neuron"
    space = make_granularity(name).on(sites)
    chosen = torch.randperm(space.n, generator=torch.Generator().manual_seed(0))[:count]
    gates, places = ablations_of(space, chosen)
    target = ">= 6" if torch.cuda.is_available() else ">= 3"
    single = make_objective("erase", model, latents, batch_size=len(latents))
    for size in (32,) if bench.quick else (8, 16, 32, 64):
        many = make_objective("erase", model, latents, size)
        difference = (
            (many.values(space, gates) / torch.tensor(one_by_one(single, model.denoiser, places)) - 1).abs().max()
        )
        ours, peer = alternate(
            lambda many=many: many.values(space, gates),
            lambda: one_by_one(single, model.denoiser, places),
            repeats=bench.repeats,
        )
        note = f"{count} {name}s, {len(latents)} noisy latents; largest relative difference {difference:.1e}"
        yield row(f"single ablations, {size} rows per pass", "s", ours, peer, peer / ours, target, note)


def ablations_of(space: ComponentSpace, chosen: Tensor) -> tuple[Tensor, list[tuple[str, Tensor]]]:
    """(A, n) gates, each row of which ablates one of the chosen components, and where these are: module, columns."""
    gates = torch.ones(len(chosen), space.n)
    gates[torch.arange(len(chosen)), chosen] = 0
    return gates, [next(iter(space.intervention(one[None]).indices.items())) for one in chosen]


def one_by_one(objective: Objective, denoiser: nn.Module, places: list[tuple[str, Tensor]]) -> list[float]:
    """The peer: a hook zeroes the columns, one forward pass per ablation with all noisy latents in its batch."""
    values = []
    for module, columns in places:

        def mask(_: nn.Module, args: tuple, columns: Tensor = columns) -> tuple:
            x = args[0].clone()
            x[..., columns] = 0
            return (x, *args[1:])

        hook = denoiser.get_submodule(module).register_forward_pre_hook(mask)
        try:
            values.append(objective.value())
        finally:
            hook.remove()
    return values
