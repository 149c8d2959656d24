import numpy as np
import pytest

from cad_exp.mini.manners import MANNERS
from cad_exp.mini.objects import SKIN
from cad_exp.mini.pen import CANVAS
from cad_exp.mini.world import (
    COLOURS,
    LABELS,
    OBJECTS,
    PERSON,
    STYLES,
    Scene,
    all_captions,
    captions,
    draw,
    draw_with_mask,
    render,
)


def test_the_same_seed_draws_the_same_picture_and_others_differ():
    image, scene = draw(7)
    again, same = draw(7)
    assert image.shape == (64, 64, 3) and image.dtype == np.uint8
    assert scene == same and np.array_equal(image, again)
    assert not np.array_equal(image, draw(8)[0])


@pytest.mark.parametrize("style", range(len(STYLES)))
@pytest.mark.parametrize("thing", range(len(LABELS)))
def test_everything_is_drawn_in_every_style(thing, style):
    scene, empty = Scene(thing, style, False, 3), Scene(LABELS.index("nothing"), style, False, 3)
    image = render(scene, np.random.default_rng(0))
    changed = (image.astype(int) != render(empty, np.random.default_rng(0))).any(-1).mean()
    assert (changed > 0.05) == (thing != LABELS.index("nothing"))


def test_the_naked_mannequin_is_drawn_in_one_skin_tone():
    image = render(Scene(PERSON, 0, True, COLOURS.index("blue")), np.random.default_rng(3))
    inner = {tuple(pixel) for pixel in image.reshape(-1, 3)} & set(SKIN)
    assert len(inner) == 1


def test_captions_name_what_is_shown_and_nothing_else():
    church = Scene(OBJECTS.index("church"), 0, False, COLOURS.index("blue"))
    assert {"church", "a photo of a church", "a church on a blue background"} <= set(captions(church))
    assert "a photo in the style of Van Gogh" in captions(Scene(1, STYLES.index("Van Gogh"), False, 0))
    assert "naked" in captions(Scene(PERSON, 0, True, 0)) and "naked" not in captions(Scene(PERSON, 0, False, 0))
    assert not any("background" in text for text in captions(Scene(0, STYLES.index("Rembrandt"), False, 0)))
    known = set(all_captions())
    assert all(set(captions(draw(seed)[1])) <= known for seed in range(200))


def test_scenes_cover_the_world():
    scenes = [draw(seed)[1] for seed in range(400)]
    assert {s.object for s in scenes} == set(range(len(LABELS)))
    assert {s.style for s in scenes} == set(range(len(STYLES)))
    assert {s.colour for s in scenes} == set(range(len(COLOURS)))
    assert {s.naked for s in scenes if s.object == PERSON} == {True, False}
    assert not any(s.naked for s in scenes if s.object != PERSON)


def test_the_mask_is_where_the_object_changes_the_picture():
    """By the same pen without an object: what differs is the object, but for its smooth edges."""
    seen = 0
    for seed in range(60):
        image, mask, scene = draw_with_mask(seed)
        assert np.array_equal(image, draw(seed)[0]) and mask.shape == (64, 64) and mask.dtype == bool
        assert mask.any() == (scene.object != LABELS.index("nothing"))
        if scene.style == 0 and mask.any():
            rng = np.random.default_rng(seed)
            rng.choice(len(LABELS), p=np.array([*[1.0] * len(OBJECTS), 2.2, 0.45]) / (len(OBJECTS) + 2.65))
            assert rng.random() < 0.55
            _ = scene.object == PERSON and rng.random()
            rng.integers(len(COLOURS))
            empty = render(Scene(LABELS.index("nothing"), 0, False, scene.colour), rng)
            changed = (np.abs(image.astype(int) - empty) > 20).any(-1)
            assert (changed & mask).sum() / (changed | mask).sum() > 0.6
            seen += 1
    assert seen > 20


@pytest.mark.parametrize("manner", ["Pablo Picasso", "Van Gogh"])
def test_a_manner_that_moves_the_scene_moves_the_mask_alike(manner):
    """The picture here is the mask itself: where it is light after the manner, the new mask has to be."""
    mask = np.zeros((CANVAS, CANVAS), np.uint8)
    mask[50:130, 60:120] = 255
    image = np.repeat(mask[..., None], 3, 2).astype(np.float32)
    painted, moved = MANNERS[manner](image, mask, np.random.default_rng(0))
    seams = (painted == 20).all(-1)
    assert np.array_equal((painted.max(-1) > 100)[~seams], (moved > 127)[~seams]) and not np.array_equal(moved, mask)
