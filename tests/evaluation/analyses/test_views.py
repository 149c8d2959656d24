"""Views of an analysis come back from their files as they were."""

from pathlib import Path

import numpy as np

from cad_exp.evaluation.analyses.views import Bars, Lines, Matrix, Pictures, load, save
from cad_exp.reporting.figures.analysis import draw

ONE = np.array([[1.0, 2.0]])
VIEWS = [
    Matrix("m", ["a"], ["b", "c"], np.array([[1.5, np.nan]]), signed=True, note="n"),
    Lines("l", "t", [1, 100], ["s"], ONE, ONE - 1, ONE + 1),
    Bars("b", ["x", "y"], ONE[0], ONE[0], ONE[0], chance=0.5),
    Pictures("p", ["r"], ["c"], np.zeros((1, 1, 4, 4, 3), np.uint8)),
]


def test_views_survive_their_files(tmp_path: Path):
    told = save(VIEWS, tmp_path / "views.npz")
    for before, after in zip(VIEWS, load(told, tmp_path / "views.npz"), strict=True):
        assert type(before) is type(after)
        for name, value in vars(before).items():
            np.testing.assert_array_equal(value, getattr(after, name))


def test_every_kind_of_view_is_drawn(tmp_path: Path):
    assert draw(VIEWS, tmp_path / "a.png", "title").stat().st_size > 1000
