"""Metrics of a dictionary's reconstruction, from numbers by image that are worked out by hand."""

import numpy as np
import pytest

from cad_exp.evaluation.reconstruction import Reconstructed, metrics


def measured(errors: list[float], losses: tuple[list[float], ...] | None = None) -> Reconstructed:
    number = len(errors)
    spliced = None if losses is None else tuple(np.array(each) for each in losses)
    return Reconstructed(
        np.array(errors), np.full(number, 4.0), np.ones(number), np.full(number, 2.0), 0.25, 8, spliced
    )


def test_sums_of_images_are_divided_and_compared_on_the_same_images():
    own, rival = measured([1.0, 0.0, 2.0]), measured([2.0, 1.0, 3.0])
    found = {each["name"]: each for each in metrics("own", own, {"own": own, "rival": rival}, {"k": 2})}
    fvu = found["fvu"]
    assert fvu["value"] == pytest.approx(3 / 12) and fvu["low"] < 0.25 < fvu["high"] and fvu["n"] == 3
    change = fvu["changes"]["rival"]  # a quarter less in every image, so in every resample
    assert [change[key] for key in ("value", "low", "high")] == pytest.approx([-0.25] * 3)
    assert found["l0"]["value"] == 2 and found["dead"]["value"] == 0.25 and found["dead"]["n"] == 8
    assert "loss_recovered" not in found


def test_the_loss_is_of_its_own_images():
    """Of the 4 + 2 that the mean loses, 3 + 1.5 are won back; only two of three images were spliced."""
    own = measured([1.0, 0.0, 2.0], ([2.0, 1.5], [1.0, 1.0], [5.0, 3.0]))
    [loss] = [each for each in metrics("own", own, {"own": own}, {}) if each["name"] == "loss_recovered"]
    assert loss["value"] == pytest.approx(4.5 / 6) and loss["n"] == 2 and loss["changes"] == {}
