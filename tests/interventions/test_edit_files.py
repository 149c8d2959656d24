"""Edit files that somebody else wrote: refused in one sentence, and the model stays as it is."""

from pathlib import Path

import pytest
import torch
from torch import nn

from cad_exp.interventions.edit import Edit
from cad_exp.utils.errors import UserError
from cad_exp.utils.tensors import save_tensors

GOOD = {"unit": "column", "factor": 0.0, "meta": {}}
INDICES = {"0": torch.tensor([0, 1], dtype=torch.int32)}


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.Conv2d(2, 2, 3))


def refused(path: Path, expected: str) -> None:
    model = network()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(UserError) as error:
        Edit.load(path).apply(model)
    assert expected in str(error.value) and "\n" not in str(error.value)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    "changed, expected",
    [
        ({"factor": [0]}, "factor"),
        ({"factor": None}, "factor"),
        ({"factor": True}, "factor"),
        ({"factor": 10**400}, "factor"),
        ({"factor": 1e300}, "factor"),
        ({"meta": None}, "metadata"),
        ({"meta": []}, "metadata"),
        ({"unit": "tensor"}, "unknown edit unit"),
        ({"unit": ["column"]}, "unknown edit unit"),
        ({"unit": None}, "unknown edit unit"),
    ],
)
def test_odd_settings(changed: dict, expected: str, tmp_path: Path):
    refused(save_tensors(tmp_path / "edit.safetensors", "edit", INDICES, GOOD | changed), expected)


@pytest.mark.parametrize(
    "tensors, expected",
    [
        ({"0": torch.tensor([0.5, 1.0])}, "whole numbers"),
        ({"0": torch.tensor([True, False])}, "whole numbers"),
        ({"0": torch.tensor([[0, 1]])}, "whole numbers"),
        ({"0": torch.tensor(1)}, "whole numbers"),
        ({"0": torch.tensor([1, 1])}, "twice"),
        ({"0": torch.tensor([-1, 0])}, "negative"),
        ({"0": torch.tensor([2**40])}, "does not fit"),
        ({"1": torch.tensor([0])}, "matrices"),
        ({"7": torch.tensor([0])}, "no module '7'"),
        ({"replaced:0.weight": torch.full((3, 4), float("nan"))}, "finite"),
        ({"replaced:0.weight": torch.zeros(3, 4, dtype=torch.long)}, "finite"),
    ],
)
def test_odd_tensors(tensors: dict, expected: str, tmp_path: Path):
    refused(save_tensors(tmp_path / "edit.safetensors", "edit", tensors, GOOD), expected)


@pytest.mark.parametrize("content", [b"", b"\0" * 8, b"\xff" * 100, b"{}"])
def test_files_that_are_none(content: bytes, tmp_path: Path):
    (tmp_path / "edit.safetensors").write_bytes(content)
    refused(tmp_path / "edit.safetensors", "damaged")


def test_a_good_one_is_applied(tmp_path: Path):
    model = network()
    Edit.load(save_tensors(tmp_path / "edit.safetensors", "edit", INDICES, GOOD)).apply(model)
    assert not model[0].weight[:, :2].any() and model[0].weight[:, 2:].all()
