"""Runs whose pictures a test does not look at leave them undrawn: each takes a third of a second."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def undrawn(yes: bool = True) -> Iterator[None]:
    """Runs in here draw nothing; the images that a model has made get their names in the run's folder as ever."""
    if not yes:
        yield
        return
    from cad_exp.pipeline.report import Show

    drawings = Show.drawings
    Show.drawings = lambda self: {name: draw for name, draw in drawings(self).items() if name == "images"}
    try:
        yield
    finally:
        Show.drawings = drawings
