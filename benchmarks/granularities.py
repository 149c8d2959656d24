"""Row 2: scores at all four granularities against those of one; one backward pass should serve them all."""

from collections.abc import Iterator

from benchmarks.attribution import PROMPT
from benchmarks.measure import Bench, Row, alternate, row
from cad_exp import GRANULARITIES, attribute, sample_trajectory
from cad_exp.interventions.granularity_registry import OWN


def rows(bench: Bench) -> Iterator[Row]:
    """The noisy latents are given; what is timed is the attribution alone, without saving."""
    model = bench.load()
    latents = sample_trajectory(model, PROMPT, "", seeds=[0], steps=bench.size(50, 2))
    works = [lambda name=name: attribute(model, latents, "erase", granularities=[name]) for name in OWN]
    together, *alone = alternate(lambda: attribute(model, latents, "erase"), *works, repeats=bench.repeats)
    for name, one in zip(OWN, alone, strict=True):
        note = f"{len(latents)} noisy latents; {name} alone covers {', '.join(GRANULARITIES.get(name).default_kinds)}"
        yield row(f"all granularities against {name} alone", "s", together, one, together / one, "<= 1.15", note)
