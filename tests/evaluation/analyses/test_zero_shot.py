"""Zero-shot: classes are really left out, the choice of a hookpoint, chance by hand, and toys with known answers."""

import numpy as np
import pytest

from cad_exp.evaluation.analyses.zero_shot import ZeroShot
from cad_exp.evaluation.analyses.zero_shot_folds import AMONG_ALL, SEEN, UNSEEN, Folds, Reading, chosen, per_class
from cad_exp.evaluation.analyses.zero_shot_report import accuracy, metrics, verdict
from cad_exp.evaluation.variants import CONTROL, NETWORK
from cad_exp.utils.errors import UserError

SETTINGS = {"label": None, "prompt": "a {}", "hookpoint": "auto", "timestep": 100, "folds": 2}


def world(seed: int = 0, n: int = 800) -> tuple[Folds, np.ndarray]:
    """Twelve classes, captions that say more than their names, and features that mix the directions of captions."""
    rng = np.random.default_rng(seed)
    names = rng.standard_normal((12, 8))
    classes = rng.integers(0, 12, n)
    classes[::20] = -1
    texts = names[classes] + 0.3 * rng.standard_normal((n, 8))
    x = texts @ rng.standard_normal((8, 16)) + 0.05 * rng.standard_normal((n, 16))
    rows = np.flatnonzero(classes >= 0)
    return Folds(rows[::2], rows[1::2], classes, texts, names, tuple(np.arange(12).reshape(4, 3)), seed), x


def test_unseen_names_are_found_where_they_can_be_and_not_where_nothing_is_told():
    folds, x = world()
    found = chosen(NETWORK, 100, {"good": folds.read(x)}, folds)
    noise = np.random.default_rng(1).standard_normal(x.shape)
    blind = chosen(NETWORK, 100, {"blind": folds.read(noise)}, folds)
    assert accuracy(found, UNSEEN, folds).value > 0.8 and accuracy(found, SEEN, folds).value > 0.8
    assert abs(accuracy(blind, UNSEEN, folds).value - folds.chance[UNSEEN]) < 0.12
    shuffled = folds.shuffled(0)
    control = chosen(CONTROL, 100, {"good": shuffled.read(x)}, folds)
    assert accuracy(control, SEEN, folds).value < 0.4


def test_the_map_never_sees_a_class_that_is_left_out():
    """Whatever the left-out classes' training images and captions are, nothing changes."""
    folds, x = world()
    out = np.isin(folds.classes, folds.unseen[0])
    other, texts = x.copy(), folds.texts.copy()
    rows = folds.train[out[folds.train]]
    other[rows], texts[rows] = 100.0, -50.0
    changed = Folds(folds.train, folds.test, folds.classes, texts, folds.names, folds.unseen, folds.seed)
    before, after = folds.read(x)[0], changed.read(other)[0]
    assert before.validation == after.validation and np.array_equal(before.among_all, after.among_all)


def test_each_fold_takes_the_hookpoint_that_its_validation_chooses():
    folds, _ = world()
    truth = folds.classes[folds.test]
    right = np.where(truth >= 0, truth, 0)
    good, bad = (Reading(v, r, r) for v, r in ((0.9, right), (0.1, (right + 1) % 12)))
    found = chosen(NETWORK, 1, {"a": [good, bad, good, bad], "b": [bad, good, bad, good]}, folds)
    assert found.places == ("a", "b", "a", "b") and np.nanmean(found.hits[UNSEEN]) == 1 == np.nanmean(
        found.hits[AMONG_ALL]
    )


def test_every_class_weighs_alike_and_chance_is_by_hand():
    hits, classes = np.array([1.0, 1.0, 0.0, 0.0]), np.array([0, 0, 0, 4])
    assert per_class(hits, classes) == pytest.approx([2 / 3, 0.0])
    folds, _ = world()
    assert folds.chance == pytest.approx({UNSEEN: 1 / 3, AMONG_ALL: 1 / 12, SEEN: 1 / 12})


def test_metrics_name_their_chance_and_intervals_stay_between_0_and_1():
    folds, x = world()
    now = [chosen(NETWORK, 100, {"good": folds.read(x)}, folds)]
    now.append(chosen(CONTROL, 100, {"good": folds.shuffled(0).read(x)}, folds))
    told = {(each["name"], each["variant"]): each for each in metrics(now, folds, "object")}
    own = told["unseen@object", NETWORK]
    assert own["definition"]["chance"] == pytest.approx(1 / 3) and CONTROL in own["changes"]
    assert own["high"] is None or own["high"] <= 1.0
    assert "surely above chance" in verdict(now, folds, 100)["unseen classes"]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"label": "objekt"}, "did you mean 'object'"),
        ({"leave_out": ["churc"]}, "did you mean 'church'"),
        ({"folds": 3}, "so use 2 at most"),
        ({"prompt": "a photo"}, "must hold one {}"),
        ({"label": "two"}, "needs four at least"),
    ],
)
def test_settings_that_cannot_work_are_answered(settings: dict, said: str):
    classes = {"object": ["tench", "church", "dog", "ball", "nothing"], "two": ["a", "b"]}
    with pytest.raises(UserError, match=said):
        ZeroShot(**{**SETTINGS, **settings}).check(classes)
