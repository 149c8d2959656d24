"""Segmentation: choices are made on validation images alone, and settings that cannot work are answered."""

import numpy as np
import pytest

from cad_exp.config.resolve import resolve
from cad_exp.evaluation.analyses.found_masks import ALL, Maps
from cad_exp.evaluation.analyses.segmentation import Segmentation, _centre
from cad_exp.pipeline import preflight
from cad_exp.representations.probes.base import Split
from cad_exp.utils.errors import UserError
from tests.config.test_configs import composed
from tests.data.test_labelled import folder  # noqa: F401  # a fixture
from tests.tiny import build

SETTINGS = {"label": "object", "prompt": "a photo of a {}", "images": 9, "t": 1, "hookpoints": ["block"]}


def test_timestep_and_layer_are_those_that_the_validation_images_choose():
    masks = np.zeros((4, 8, 8), bool)
    masks[:, 2:6, 2:6] = True
    noise = np.random.default_rng(0).random((4, 2, 2, 8, 8))
    good = masks.astype(float)
    noise[[0, 1], 1, 0] = good[:2]  # on validation images the second timestep's first layer is right,
    noise[[2, 3], 0, 1] = good[2:]  # on test images another one
    maps = Maps(noise, masks, Split(np.array([], int), np.array([0, 1]), np.array([2, 3])))
    best = maps.best(single=True)
    assert (best.t, best.layer, best.validation) == (1, 0, 1.0) and best.overlap.max() < 0.5
    assert maps.shown[0, 1].overlap.tolist() == [1.0, 1.0] and maps.shown[0, 1].pointing.tolist() == [1.0, 1.0]
    assert maps.best(single=False).layer == ALL


def test_the_map_of_the_centre_falls_with_the_distance():
    found = _centre((2, 4, 4))[0, 0, 0]
    assert found[1, 1] == found[2, 2] > found[0, 1] > found[0, 0] and np.array_equal(found, found.T)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"label": "objekt"}, "did you mean 'object'"),
        ({"leave_out": ["churc"]}, "did you mean 'church'"),
        ({"leave_out": ["tench"]}, "less than two classes"),
        ({"prompt": "a photo"}, "must hold one {}"),
    ],
)
def test_settings_that_cannot_work_are_answered(settings: dict, said: str):
    with pytest.raises(UserError, match=said):
        Segmentation(**{**SETTINGS, **settings}).check({"object": ["tench", "church"]})


def test_images_without_masks_are_answered_before_torch(folder):  # noqa: F811
    asked = ["task=analyse", "analysis=segmentation", "images=folder", f"images.path={folder}"]
    with pytest.raises(UserError, match="take images=world"):
        preflight.check(resolve(composed(*asked)))


@pytest.mark.parametrize("name", ["segmentation", "image_text_score"])
def test_a_model_whose_attention_is_not_read_is_answered_before_torch(name: str, once, folder):  # noqa: F811
    flux = once("flux_schnell", lambda place: build("flux_schnell", place))
    asked = ["task=analyse", f"analysis={name}", "model=local", f"model.path={flux}", "images=folder"]
    with pytest.raises(UserError, match="take a model with a UNet"):
        preflight.check(resolve(composed(*asked, f"images.path={folder}")))
