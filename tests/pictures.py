"""Runs whose pictures a test does not look at leave them undrawn: each takes a third of a second."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def undrawn(yes: bool = True) -> Iterator[None]:
    """Runs in here draw nothing and write no report; the images of a model get their names in the folder as ever."""
    if not yes:
        yield
        return
    from cad_exp.pipeline import drawing
    from cad_exp.pipeline.show import Show

    drawings, report = Show.drawings, drawing._report
    Show.drawings = lambda self: {name: draw for name, draw in drawings(self).items() if name == "images"}
    drawing._report = lambda results: {}
    try:
        yield
    finally:
        Show.drawings, drawing._report = drawings, report
