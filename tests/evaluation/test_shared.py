"""Components that concepts share: counts by hand, and their controls against draws."""

import numpy as np
import pytest

from cad_exp.evaluation.shared import components_of_several, pairs_of_concepts, strongest, told

# eight components in two layers of four; the strongest quarter are two
LAYERS = np.array([0, 0, 0, 0, 1, 1, 1, 1])
SCORES = {
    "a": np.array([9.0, 8, 1, 0, 0, 0, -1, -2]),
    "b": np.array([9.0, 1, 8, 0, 0, 0, -2, -1]),
    "c": np.array([-9.0, -8, 0, 0, 0, 1, 8, 9]),
}


def test_the_strongest_are_at_most_a_share_and_above_zero():
    assert strongest(SCORES["a"], 0.25).nonzero()[0].tolist() == [0, 1]
    assert strongest(SCORES["a"], 1.0).nonzero()[0].tolist() == [0, 1, 2]
    assert strongest(SCORES["a"], 1e-9).nonzero()[0].tolist() == [0]


def test_pairs_by_hand():
    """a and b share one of two: 2 * 2 / 8 by chance, 2 * 2 / 4 in their layer, whose variance is 2 * 2 * 2 * 2 / 48."""
    found = pairs_of_concepts(SCORES, LAYERS, 0.25).set_index(["one", "other"])
    first = found.loc[("a", "b")]
    assert (first["of"], first["of_other"], first["shared"]) == (2, 2, 1)
    assert (first["chance"], first["by_layers"]) == (0.5, 1.0)
    assert first["deviations"] == 0 and first["opposed"] == 0  # 6 and 7 suppress both, and make neither
    apart = found.loc[("a", "c")]
    assert (apart["shared"], apart["by_layers"], apart["opposed"]) == (0, 0, 4)
    assert np.isnan(apart["deviations"]) and apart["correlation"] < 0
    assert found.index[0] == ("a", "b")


def test_the_control_is_what_draws_within_layers_share():
    generator = np.random.default_rng(0)
    layers = np.repeat([0, 1, 2], [5, 20, 30])
    scores = {name: generator.normal(size=55) + (layers == 1) for name in "ab"}
    row = pairs_of_concepts(scores, layers, 0.3).iloc[0]
    a, b = (strongest(values, 0.3) for values in scores.values())
    drawn = []
    for _ in range(4000):
        mixed = a.copy()
        for layer in range(3):
            mixed[layers == layer] = generator.permutation(a[layers == layer])
        drawn.append((mixed & b).sum())
    assert row["by_layers"] == pytest.approx(np.mean(drawn), abs=0.1)
    assert row["deviations"] == pytest.approx((row["shared"] - np.mean(drawn)) / np.std(drawn), abs=0.1)


def test_components_of_several_and_what_is_said():
    several = components_of_several(SCORES, [f"n{i}" for i in range(8)], 0.25)
    assert several.to_dict("records") == [
        {"component": 0, "name": "n0", "number": 2, "concepts": "a, b", "suppresses": "c"}
    ]
    said = told(pairs_of_concepts(SCORES, LAYERS, 0.25), several, 3, 0.25)
    assert "a and b share most: 1 of 2 components, 1.0 by their layers alone, 0.5 by chance." in said
    assert "Among the strongest of more than half of the 3 concepts: 1 components." in said
