"""Image-text score: the score by hand, the conditional logit beside scikit-learn, and settings that cannot work."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from cad_exp.evaluation.analyses import choice
from cad_exp.evaluation.analyses.image_text_score import (
    ImageTextScore,
    _centred,
    _few,
    _plain,
    image_text_score,
)
from cad_exp.representations.cross_attention import Attended
from cad_exp.representations.probes.base import Split
from cad_exp.utils.errors import UserError

SETTINGS = {"prompt": "a photo of a {}", "images": 9, "shots": [1]}


def test_the_score_is_log_sum_exp_over_tokens_and_the_mean_over_positions():
    # one image, two heads, two positions, two tokens
    exponents = torch.tensor([[[[1.0, 3.0], [2.0, 2.0]], [[5.0, 3.0], [1.0, 1.0]]]])
    wanted = [np.log(4.0), (np.log(8.0) + np.log(2.0)) / 2]
    assert image_text_score(Attended(exponents.log()))[0].tolist() == pytest.approx(wanted)


def test_a_prompt_that_always_scores_high_is_put_right_by_its_mean():
    """Two prompts; the second scores 10 more on every image, and the true one 1 more."""
    y = np.array([0, 1, 0, 1])
    features = np.zeros((4, 2, 1)) + np.array([0.0, 10.0])[:, None]
    features[np.arange(4), y] += 1
    split = Split(np.array([0, 1]), np.array([], int), np.array([2, 3]))
    assert _plain(features, y, split).value == 0.5 and _centred(features, y, split).value == 1.0


def test_few_images_of_every_class_and_more_contain_fewer():
    y, train = np.array([0, 0, 0, 1, 1, 2]), np.arange(6)
    one, two = (_few(y, train, k, seed=0) for k in (1, 2))
    assert np.bincount(y[one]).tolist() == [1, 1, 1] and np.bincount(y[two]).tolist() == [2, 2, 1]
    assert set(one) <= set(two)


def test_with_two_alternatives_the_weights_are_those_of_logistic_regression():
    rng = np.random.default_rng(0)
    x, chosen = rng.normal(size=(60, 2, 3)), rng.integers(2, size=60)
    x[np.arange(60), chosen, 0] += 1.0
    strength = 0.01
    peer = LogisticRegression(fit_intercept=False, C=1 / (strength * 60), tol=1e-10, max_iter=1000)
    peer.fit(x[:, 1] - x[:, 0], chosen)
    assert choice.weights(x, chosen, strength) == pytest.approx(peer.coef_[0], abs=1e-4)


def test_what_tells_the_alternatives_apart_is_found_and_what_is_permuted_is_not():
    rng = np.random.default_rng(1)
    y = rng.integers(5, size=400)
    features = rng.normal(size=(400, 5, 4)) + 3 * rng.normal(size=(5, 4))  # each alternative has a mean of its own
    features[np.arange(400), y, 2] += 3.0
    train, validation, test = np.arange(100), np.arange(100, 150), np.arange(150, 400)
    found = choice.fit(features, y, train, validation)
    assert (found.values(features[test]).argmax(1) == y[test]).mean() > 0.8 and abs(found.weights).argmax() == 2
    permuted = choice.fit(features, rng.permutation(y), train, validation)
    assert (permuted.values(features[test]).argmax(1) == y[test]).mean() < 0.4


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"label": "objekt"}, "did you mean 'object'"),
        ({"label": None, "leave_out": ["churc"]}, "did you mean 'church'"),
        ({"label": "object", "leave_out": ["tench"]}, "less than two classes"),
        ({"label": "object", "prompt": "a photo"}, "must hold one {}"),
    ],
)
def test_settings_that_cannot_work_are_answered(settings: dict, said: str):
    with pytest.raises(UserError, match=said):
        ImageTextScore(**{**SETTINGS, **settings}).check({"object": ["tench", "church"]})
