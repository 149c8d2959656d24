"""Row 8: a sweep, whose jobs share one process and the stage cache, against the same jobs as separate cold runs."""

import tempfile
from collections.abc import Iterator
from itertools import product
from statistics import mean

from benchmarks.measure import Bench, Row, row, seconds
from benchmarks.startup import SMALL, command

CONCEPTS = ("church", "tench", "nudity", "van_gogh")
ESTIMATORS = ("first_order", "gradient_magnitude", "magnitude")
RATIOS = ("0.05", "0.2")
# Few images, so that the comparison takes minutes and not an hour.
SETTINGS = ("evaluation=erasure", "evaluation.samples=16", "tracking=disabled")


def rows(bench: Bench) -> Iterator[Row]:
    """Seconds of the whole sweep; of cold runs, every fifth job is measured."""
    concepts, estimators, ratios = (part[: bench.size(9, 1)] for part in (CONCEPTS, ESTIMATORS, RATIOS))
    settings = SMALL + ("evaluation=erasure",) if bench.quick else SETTINGS
    jobs = list(product(concepts, estimators, ratios))
    cold = jobs[:: bench.size(5, 1)]
    times = []
    for concept, estimator, ratio in cold:
        with tempfile.TemporaryDirectory() as folder:
            asked = (f"concept={concept}", f"estimator={estimator}", f"edit.ratio={ratio}")
            places = (f"hydra.run.dir={folder}/run", f"runtime.cache={folder}/cache")
            times.append(seconds(lambda asked=asked, places=places: command(*asked, *settings, *places)))
    with tempfile.TemporaryDirectory() as folder:
        asked = (f"concept={','.join(concepts)}", f"estimator={','.join(estimators)}", f"edit.ratio={','.join(ratios)}")
        places = (f"hydra.sweep.dir={folder}/sweep", f"runtime.cache={folder}/cache")
        sweep = seconds(lambda: command("-m", *asked, *settings, *places))
        again = seconds(lambda: command("-m", *asked, *settings, *places))
    total = mean(times) * len(jobs)
    note = f"{len(jobs)} jobs; peer: the mean of {len(cold)} measured cold runs ({mean(times):.1f} s) times {len(jobs)}"
    yield row("a sweep against separate cold runs", "s", sweep, total, total / sweep, ">= 2", note)
    yield row("the same sweep again", "s", again, sweep, again, "<= 15", "nothing is missing; the target is in seconds")
