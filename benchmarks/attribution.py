"""Row 1: all scores of one concept, against the public procedure on one network, seed and number of noisy latents."""

from collections.abc import Iterator

from benchmarks.measure import Bench, Row, alternate, row
from benchmarks.memory import increase
from benchmarks.public import our_cost, public_attribution, public_cost
from cad_exp import Attribution, DiffusionModel, attribute, sample_trajectory

PROMPT = "a photo of a church"


def ours(model: DiffusionModel, batch_size: int, steps: int = 50) -> Attribution:
    """One trajectory of `steps` noisy latents, scores at all granularities."""
    latents = sample_trajectory(model, PROMPT, "", seeds=[0], steps=steps, batch_size=batch_size)
    return attribute(model, latents, "erase", batch_size=batch_size)


def rows(bench: Bench) -> Iterator[Row]:
    """Time and peak memory at several batch sizes of ours; the peer's is 1, as in the public code."""
    model, steps = bench.load(), bench.size(50, 3)
    agreement = _agreement(model, steps)
    sizes = (1,) if bench.quick else (1, 2, 4, 8, 16)
    peer, *times = alternate(
        lambda: public_attribution(model, PROMPT, steps=steps),
        *[lambda size=size: ours(model, size, steps) for size in sizes],
        repeats=bench.repeats,
    )
    cost = f"{our_cost(steps)} against {public_cost(steps)} forward-equivalents"
    peer_memory = increase("public", bench.model, steps=steps)
    for size, time in zip(sizes, times, strict=True):
        name, same = f"attribution, batch {size}", f"{cost}; largest difference of the scores {agreement:.1e}"
        yield row(f"{name}: time", "s", time, peer, peer / time, ">= 10", same)
        memory = increase("ours", bench.model, steps=steps, batch=size)
        yield row(f"{name}: peak memory", "MiB", memory, peer_memory, memory / peer_memory, "<= 0.5", "above the model")


def _agreement(model: DiffusionModel, steps: int) -> float:
    """Largest difference of our scores from the peer's, relative to the largest score of their matrix."""
    peer, found = public_attribution(model, PROMPT, steps=steps), ours(model, 4, steps)
    worst, start = 0.0, 0
    for site in found.sites:
        theirs = peer[site.module]
        mine = found.scores["weight"][start : start + site.size].view(site.shape)
        worst, start = max(worst, ((mine - theirs).abs().max() / theirs.abs().max()).item()), start + site.size
    return worst
