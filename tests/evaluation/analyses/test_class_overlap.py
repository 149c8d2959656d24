"""Class overlap: distances by hand, the control of other words, and settings that cannot work."""

import numpy as np
import pytest
import torch

from cad_exp.evaluation.analyses.class_overlap import ClassOverlap, between, pairwise
from cad_exp.utils.errors import UserError

TEMPLATES = {"prompt": "a photo of a {}", "rephrased": "a picture of a {}", "images": 4}


def test_distances_are_mean_squares_over_the_elements_of_a_prediction():
    # one image, two classes with two phrasings each, predictions of two elements
    predicted = torch.tensor([[[0.0, 0.0], [3.0, 1.0], [0.0, 2.0], [3.0, 1.0]]])
    found = pairwise(predicted, 2)
    assert found[0, :, :2].tolist() == [[0.0, 5.0], [5.0, 0.0]]  # (9 + 1) / 2
    assert found[0, :, 2].tolist() == [2.0, 0.0]  # (0 + 4) / 2


def test_the_mean_over_pairs_leaves_out_a_class_and_itself():
    assert between(np.array([[0.0, 1.0, 2.0], [1.0, 0.0, 6.0], [2.0, 6.0, 0.0]])) == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"label": "objekt"}, "did you mean 'object'"),
        ({"label": None, "leave_out": ["churc"]}, "did you mean 'church'"),
        ({"label": "object", "leave_out": ["tench"]}, "less than two classes"),
        ({"label": "object", "rephrased": "a photo of a {}"}, "say it in other words"),
        ({"label": "object", "prompt": "a photo"}, "must hold one {}"),
    ],
)
def test_settings_that_cannot_work_are_answered(settings: dict, said: str):
    with pytest.raises(UserError, match=said):
        ClassOverlap(**{**TEMPLATES, **settings}).check({"object": ["tench", "church"]})


def test_the_class_nothing_is_left_out_where_there_is_one():
    ClassOverlap(None, **TEMPLATES).check({"class": ["cat", "dog"]})
    with pytest.raises(UserError, match="less than two classes"):
        ClassOverlap(None, **TEMPLATES).check({"object": ["tench", "nothing"]})
