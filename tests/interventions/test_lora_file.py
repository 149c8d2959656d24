"""Edits as LoRA files: diffusers loads them, and predicts as the edited pipeline does; what has no low rank is told."""

import pytest
import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor

from cad_exp.interventions.edit import Edit
from cad_exp.interventions.lora_file import export_lora, factors
from cad_exp.interventions.selection import select
from cad_exp.utils.errors import UserError
from tests.models.test_lora import BLOCK

CONV = "down_blocks.0.resnets.0.conv1"


@pytest.fixture
def pipe(tiny_folder):
    """A plain pipeline of one's own."""
    return StableDiffusionPipeline.from_pretrained(tiny_folder, safety_checker=None)


def predicted(pipe) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    x, text = torch.randn(1, 4, 8, 8, generator=generator), torch.randn(1, 7, 32, generator=generator)
    with torch.no_grad():
        return pipe.unet(x, torch.tensor([500]), text).sample


def edits(kind: str, attribution, pipe) -> Edit:
    if kind in ("neuron", "head"):
        return select(attribution, kind, sign="positive", ratio=0.1, scope="layer")
    weight = pipe.unet.get_submodule(f"{BLOCK}.attn2.to_k").weight.detach()
    change = torch.outer(torch.linspace(-1, 1, weight.shape[0]) / 4, torch.linspace(0, 1, weight.shape[1]))
    if kind == "replaced":
        return Edit({}, replaced={f"{BLOCK}.attn2.to_k.weight": weight + change}, meta={"changed": 1})
    kernel = pipe.unet.get_submodule(CONV).weight.detach().clone()
    kernel[3] *= -1.0
    return Edit({}, replaced={f"{CONV}.weight": kernel}, meta={"changed": 1})


@pytest.mark.parametrize("kind", ["neuron", "head", "replaced", "convolution"])
def test_diffusers_loads_it_and_predicts_as_the_edited_pipeline(kind, pipe, tiny_attribution, tmp_path):
    edit, plain = edits(kind, tiny_attribution, pipe), predicted(pipe)
    before = {name: x.clone() for name, x in pipe.unet.state_dict().items()}
    file = export_lora(edit, pipe, tmp_path / "edit.lora.safetensors")
    assert all(torch.equal(x, before[name]) for name, x in pipe.unet.state_dict().items())
    with edit.apply(pipe):
        wanted = predicted(pipe)
    pipe.load_lora_weights(str(file))
    found = predicted(pipe)
    moved = (wanted - plain).abs().max()
    assert moved > 1e-3 and (found - wanted).abs().max() < 1e-4 * max(1.0, float(moved))


def test_factors_are_exact_and_small():
    columns = torch.zeros(6, 8)
    columns[:, [1, 5]] = torch.randn(6, 2, generator=torch.Generator().manual_seed(0))
    up, down, _ = factors(columns, torch.ones(6, 8))
    assert up.shape == (6, 2) and torch.equal(up @ down, columns)  # by hand: the two columns, and unit vectors
    up, down, _ = factors(columns.T.contiguous(), torch.ones(8, 6))
    assert down.shape == (2, 6) and torch.equal(up @ down, columns.T)
    full = torch.outer(torch.arange(1.0, 9), torch.arange(1.0, 7))
    up, down, _ = factors(full, torch.ones(8, 6))
    assert up.shape == (8, 1) and torch.allclose(up @ down, full, atol=1e-4)


def test_what_a_lora_cannot_hold_is_told(pipe, tiny_attribution, tmp_path):
    weight = pipe.unet.get_submodule(f"{BLOCK}.attn2.to_k").weight.detach()
    noise = torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
    for replaced, said in {
        f"{BLOCK}.attn2.to_k.weight": "a rank of up to 32, so a LoRA would hold .* numbers .* have",
        "conv_out.bias": "changes 'conv_out.bias', which a LoRA cannot hold: export it as a checkpoint",
    }.items():
        new = weight + noise if "to_k" in replaced else torch.ones(4)
        with pytest.raises(UserError, match=said):
            export_lora(Edit({}, replaced={replaced: new}), pipe, tmp_path / "x.safetensors")
    with pytest.raises(UserError, match="changes no weight"):
        export_lora(Edit({}), pipe, tmp_path / "x.safetensors")
    text = Edit({"text_encoder:encoder.layers.0.mlp.fc2": torch.tensor([0])})
    with pytest.raises(UserError, match="changes a text encoder"):
        export_lora(text, pipe, tmp_path / "x.safetensors")
    assert not list(tmp_path.iterdir())


def test_nothing_is_written_over(pipe, tiny_attribution, tmp_path):
    (file := tmp_path / "lora.safetensors").write_text("precious")
    with pytest.raises(UserError, match="there is already something at .*nothing is written over it"):
        export_lora(select(tiny_attribution, "head", "positive", count=1, factor=0), pipe, file)
    assert file.read_text() == "precious"
