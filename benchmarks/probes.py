"""Row 5: memory of an attribution over many noisy latents; they are streamed, so it should not grow."""

from collections.abc import Iterator

from benchmarks.measure import Bench, Row, row
from benchmarks.memory import increase


def rows(bench: Bench) -> Iterator[Row]:
    """Twenty trajectories against one, at the same batch size, each in its own process."""
    steps, seeds = bench.size(50, 2), bench.size(20, 3)
    for batch in (2,) if bench.quick else (1, 4, 16):
        few, many = (increase("ours", bench.model, steps=steps, batch=batch, seeds=n) for n in (1, seeds))
        name = f"memory of {steps * seeds:,} noisy latents against {steps}, batch {batch}"
        yield row(name, "MiB", many, few, many / few, "<= 1.1", "peak above the model; ours: many, peer: few")
