"""The map to texts: beside scikit-learn's ridge, and names of classes that it has not seen."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler

from cad_exp.representations.text_map import fit

RNG = np.random.default_rng(0)


def test_it_is_scikit_learn_s_ridge_on_standardised_features():
    x, texts = RNG.standard_normal((50, 7)) * np.arange(1, 8) + 3, RNG.standard_normal((50, 4))
    for strength, made in zip((0.5, 20.0), fit(x, texts, (0.5, 20.0)), strict=True):
        scaler = StandardScaler().fit(x)
        expected = Ridge(strength).fit(scaler.transform(x), texts).predict(scaler.transform(x)) - texts.mean(0)
        assert made(x) == pytest.approx(expected)


def test_a_name_that_was_never_seen_is_found_where_texts_and_features_share_a_space():
    names = RNG.standard_normal((6, 5))
    mixing = RNG.standard_normal((5, 9))
    classes = RNG.integers(0, 6, 200)
    texts = names[classes]
    x = texts @ mixing + 0.05 * RNG.standard_normal((200, 9))
    seen = classes < 5
    said = fit(x[seen], texts[seen], [0.1])[0].called(x[~seen], names).argmax(1)
    assert np.mean(said == 5) == 1.0


def test_features_that_tell_nothing_lead_to_the_mean_and_a_constant_one_is_no_trouble():
    x = np.concatenate([RNG.standard_normal((30, 2)), np.ones((30, 1))], 1)
    made = fit(x, np.tile([1.0, 2.0], (30, 1)), [1.0])[0]
    assert made(x) == pytest.approx(np.zeros((30, 2)), abs=1e-12)
    assert np.isfinite(made.called(x, np.eye(2))).all()
