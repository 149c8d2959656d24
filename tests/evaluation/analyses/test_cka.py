"""The analysis of layers: means over pairs by hand, and what it says of a network of two blocks."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from cad_exp.evaluation.analyses.cka import LayerSimilarity, pairs
from cad_exp.evaluation.variants import CONTROL, NETWORK, UNTRAINED
from cad_exp.representations.cka import Alignment
from cad_exp.utils.errors import UserError


def given(images: int = 40) -> SimpleNamespace:
    """Layers a and b are one feature, c and d another; untrained, all are the same."""
    rng = np.random.default_rng(0)
    first, second = (rng.standard_normal((images, 1, 1, 3)) for _ in range(2))
    noise = {name: 0.1 * rng.standard_normal((images, 2, 1, 3)) for name in "abcd"}

    def layers(**features: np.ndarray) -> dict[str, torch.Tensor]:
        return {name: torch.tensor(each + noise[name]) for name, each in features.items()}

    return SimpleNamespace(
        images=range(images),
        timesteps=[100, 500],
        seed=0,
        tick=lambda *_: None,
        activations=layers(a=first, b=first, c=second, d=second),
        untrained=layers(a=first, b=first, c=first, d=first),
    )


def test_the_mean_takes_each_pair_once():
    values = np.array([[1.0, 0.5, 0.1], [0.7, 1.0, 0.3], [0.9, 0.9, 1.0]])
    found = pairs(Alignment(values, np.repeat(values[..., None], 4, 2)))
    assert found.value == pytest.approx(0.3) and found.without == pytest.approx(np.full(4, 0.3))


def test_two_blocks_are_found_and_their_controls_are_told():
    found = LayerSimilarity(100, 0.7).find(given())
    assert (
        "2 of alike layers" in found.verdict["blocks, network"] and "a to b; c to d" in found.verdict["blocks, network"]
    )
    assert "1 of alike layers" in found.verdict["blocks, random weights"]
    told = {(each["name"], each["variant"]): each for each in found.metrics}
    assert told["layers@100", NETWORK]["value"] == pytest.approx(1 / 3, abs=0.1)
    assert told["layers@100", UNTRAINED]["value"] > 0.9 and abs(told["layers@100", CONTROL]["value"]) < 0.15
    assert told["layers@100", NETWORK]["changes"][UNTRAINED]["high"] < 0 and told["timesteps", NETWORK]["value"] > 0.9
    assert len(found.table) == 3 * (2 * 16 + 4 * 2)


def test_too_few_images_are_answered():
    with pytest.raises(UserError, match="too few for CKA"):
        LayerSimilarity(100, 0.7).find(given(6))
