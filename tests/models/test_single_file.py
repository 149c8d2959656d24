"""Single-file checkpoints in the original code's names: the same model as its folder, and every way to be refused."""

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import save_file

from cad_exp.cli import memory
from cad_exp.config.resolve import resolve
from cad_exp.models.content import model_content
from cad_exp.models.pipeline import DiffusionModel
from cad_exp.pipeline.preflight import check as ready
from cad_exp.utils.errors import UserError
from tests.config.test_configs import composed
from tests.models.test_checkpoints import ldm_names

# diffusers' name in a VAE -> the original's, and the other way round for the blocks of the decoder
RENAMED = {"conv_shortcut": "nin_shortcut", "conv_norm_out": "norm_out", "mid_block.attentions.0.": "mid.attn_1."}
ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}


def vae_name(name: str, blocks: int) -> str:
    """The original's name of a VAE's tensor, written down by position as in the scripts of diffusers."""
    for index in range(2):
        name = name.replace(f"mid_block.resnets.{index}.", f"mid.block_{index + 1}.")
    for index in range(blocks):
        name = name.replace(f"down_blocks.{index}.downsamplers.0.", f"down.{index}.downsample.")
        name = name.replace(f"up_blocks.{index}.upsamplers.0.", f"up.{blocks - 1 - index}.upsample.")
        for layer in range(3):
            name = name.replace(f"down_blocks.{index}.resnets.{layer}.", f"down.{index}.block.{layer}.")
            name = name.replace(f"up_blocks.{index}.resnets.{layer}.", f"up.{blocks - 1 - index}.block.{layer}.")
    attends = "attentions" in name
    for ours, theirs in RENAMED.items():
        name = name.replace(ours, theirs)
    for ours, theirs in ATTENTION.items() if attends else ():
        name = name.replace(f".{ours}.", f".{theirs}.")
    return f"first_stage_model.{name}"


def original(pipe: StableDiffusionPipeline) -> dict[str, torch.Tensor]:
    """All weights of a pipeline under the names of the original Stable Diffusion code."""
    names, blocks = ldm_names(pipe.unet), len(pipe.vae.config.block_out_channels)
    found = {names[name]: x for name, x in pipe.unet.state_dict().items()}
    for name, x in pipe.vae.state_dict().items():
        matrix = "attentions" in name and x.dim() == 2  # a 1x1 convolution there
        found[vae_name(name, blocks)] = x[..., None, None] if matrix else x
    for name, x in pipe.text_encoder.state_dict().items():
        whole = name if name.startswith("text_model.") else f"text_model.{name}"
        found[f"cond_stage_model.transformer.{whole}"] = x
    return {name: x.clone().contiguous() for name, x in found.items()}


@pytest.fixture(scope="module")
def single(tiny_pipe, tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("single") / "model.safetensors"
    save_file(original(tiny_pipe), file)
    return file


@pytest.fixture
def described(tiny_folder, tmp_path) -> Path:
    """A folder that describes the model and holds none of its weights."""
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "described"))
    for file in folder.rglob("*.safetensors"):
        file.unlink()
    return folder


def config(file: Path, *more: str) -> dict:
    return resolve(composed("concept=church", "model=local", f"model.path={file}", "judge=none", *more))


def test_a_single_file_is_the_model_of_its_folder(single, described, tiny_folder):
    model, own = DiffusionModel.load(single, config=str(described), device="cpu"), DiffusionModel.load(tiny_folder)
    assert model.fingerprint() == own.fingerprint()
    asked = {"prompts": ["a church"], "seeds": [1], "steps": 2}
    assert np.array_equal(model.generate(**asked), own.generate(**asked))
    assert DiffusionModel.load(single, config=str(described), precision="bf16").dtype == torch.bfloat16


def test_it_is_identified_by_its_content_and_its_config(single, described):
    settings = {"path": str(single), "revision": None, "config": str(described)}
    before = model_content(settings)["weights"]
    file = described / "scheduler" / "scheduler_config.json"
    file.write_text(file.read_text() + "\n")
    changed = model_content(settings)["weights"]
    copy = described / "other.safetensors"
    copy.write_bytes(single.read_bytes() + b"\0")
    assert len({before, changed, model_content(settings | {"path": str(copy)})["weights"]}) == 3


def test_it_is_checked_before_the_work(single, described, tmp_path, capsys):
    ready(config(single, f"model.config={described}"))
    assert memory.main(["model=local", f"model.path={single}", f"model.config={described}"]) == 0
    assert "local" in capsys.readouterr().out
    for more, said in {
        (): "holds no configs and no tokenizer: give model.config=FOLDER",
        (f"model.config={single}",): "is a file: give the diffusers folder",
        (f"model.config={tmp_path / 'nowhere'}",): "there is no model folder",
    }.items():
        with pytest.raises(UserError, match=said):
            ready(config(single, *more))


class Evil:
    def __reduce__(self):
        return (open, ("pwned", "w"))


@pytest.mark.parametrize("name", ["model.ckpt", "model.pt", "model.bin", "model.safetensors"])
def test_pickles_are_refused_unopened(name, described, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_bytes(pickle.dumps({"state_dict": Evil()}))
    said = (
        "damaged" if name.endswith("safetensors") else "is a pickle, .*convert it first, by safetensors.torch.save_file"
    )
    with pytest.raises(UserError, match=said):
        ready(config(tmp_path / name, f"model.config={described}"))
    assert not (tmp_path / "pwned").exists()


def test_a_file_of_another_kind_is_one_sentence(described, tmp_path):
    save_file({"x": torch.ones(2)}, tmp_path / "x.safetensors")
    with pytest.raises(UserError, match="cannot load the model .*model.config describes") as error:
        DiffusionModel.load(tmp_path / "x.safetensors", config=str(described), device="cpu")
    assert "\n" not in str(error.value)
