"""Prompt directions: what settings cannot work; the functions behind it have tests of their own."""

import pytest
import torch

from cad_exp.evaluation.analyses.prompt_directions import PromptDirections, _naming
from cad_exp.evaluation.variants import CONTROL, NETWORK
from cad_exp.representations.prompt_directions import Bank
from cad_exp.utils.errors import UserError

SETTINGS = {
    "label": None,
    "prompt": "a photo of a {}",
    "rephrased": "a picture of a {}",
    "hookpoint": "mid_block",
    "seeds": 2,
    "steps": 2,
    "guidance": 3.0,
    "neutral": "church",
    "attributes": ["red", "blue"],
}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"label": "objekt"}, "did you mean 'object'"),
        ({"leave_out": ["tench"]}, "less than two classes"),
        ({"seeds": 1}, "use 2 or more"),
        ({"attributes": ["red"]}, "two prompts other than"),
        ({"attributes": ["red", "church"]}, "two prompts other than"),
        ({"rephrased": "a picture"}, "must hold one {}"),
    ],
)
def test_settings_that_cannot_work_are_answered(wrong: dict, said: str):
    with pytest.raises(UserError, match=said):
        PromptDirections(**{**SETTINGS, **wrong}).check({"object": ["tench", "church"]})


def test_names_are_counted_beside_prompts_in_random_order():
    """Three prompts, each its own axis; of six activations one has the wrong axis."""
    bank = Bank.of(["a", "b", "c"], [axis[None].repeat(2, 1) for axis in torch.eye(3)])
    activations = torch.eye(3).repeat_interleave(2, 0)
    activations[1] = torch.eye(3)[2]
    found = {
        each["variant"]: each for each in _naming("x", bank, activations, torch.tensor([0, 0, 1, 1, 2, 2]), seed=0)
    }
    assert found[NETWORK]["value"] == pytest.approx(5 / 6) and found[NETWORK]["definition"]["chance"] == pytest.approx(
        1 / 3
    )
    assert found[CONTROL]["value"] < 5 / 6 and found[NETWORK]["changes"][CONTROL]["value"] > 0
