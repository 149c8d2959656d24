"""A tiny random Stable Diffusion pipeline, built in code: the whole machinery runs on it in a second."""

import json
import os
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_OFFLINE", "1")
# Tests read our arrows, whatever the locale of the machine.
os.environ.setdefault("PYTHONIOENCODING", "utf-8")
# Tiny tensors: a second thread only makes the first one wait, here and in the commands that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from filelock import FileLock

from tests import valid_results
from tests.warm import hasten

hasten()
valid_results.demand()


@pytest.fixture(scope="session")
def once(tmp_path_factory) -> Callable[[str, Callable[[Path], Any]], Path]:
    """Make a folder once for all processes of the tests: `once(name, make)` is the folder that `make` filled."""
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def folder(name: str, make: Callable[[Path], Any]) -> Path:
        place, done = base / "shared" / name, base / "shared" / f"{name}.done"
        place.parent.mkdir(exist_ok=True)
        with FileLock(f"{place}.lock"):
            if not done.exists():
                make(place)
                done.touch()
        return place

    return folder


@pytest.fixture(scope="session", autouse=True)
def stage_cache(once) -> Path:
    """One stage cache for the runs of all tests that do not test it; a test only reads what is there by its key."""
    place = once("stages", Path.mkdir)
    os.environ["CAD_EXP_TESTS_CACHE"] = str(place)
    return place


def _tokenizer(folder):
    from transformers import CLIPTokenizer

    folder.mkdir(parents=True, exist_ok=True)
    letters = list(string.ascii_lowercase + string.digits)
    tokens = [*letters, *[letter + "</w>" for letter in letters], "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "CLIPTokenizer", "model_max_length": 16, "pad_token": "<|endoftext|>"})
    )
    return CLIPTokenizer.from_pretrained(folder, model_max_length=16)


def build_tiny(folder, prediction_type="epsilon"):
    """Write a tiny pipeline (16-pixel images, 8 x 8 latents) into `folder`."""
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    tokenizer = _tokenizer(folder.parent / f"{folder.name}-tokenizer")
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=32,
        attention_head_dim=4,  # diffusers reads it as the number of heads
        norm_num_groups=8,
    )
    vae = AutoencoderKL(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=16,
    )
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=16,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type=prediction_type,
    )
    pipe = StableDiffusionPipeline(
        vae, text_encoder, tokenizer, unet, scheduler, None, None, requires_safety_checker=False
    )
    pipe.save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def threads():
    """A CPU's last bits depend on the number of threads: no test leaves another one behind."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny_folder(once):
    """Path of the tiny eps pipeline."""
    return once("tiny", build_tiny)


@pytest.fixture(scope="session")
def tiny_v_folder(once):
    """Path of the tiny v-prediction pipeline."""
    return once("tiny_v", lambda folder: build_tiny(folder, "v_prediction"))


@pytest.fixture(scope="session")
def tiny_pipe(tiny_folder):
    """The tiny pipeline as plain diffusers; leave its weights as you found them."""
    from diffusers import StableDiffusionPipeline

    return StableDiffusionPipeline.from_pretrained(tiny_folder, safety_checker=None)


@pytest.fixture(scope="session")
def tiny_model(tiny_folder):
    """The tiny pipeline behind DiffusionModel, on the CPU."""
    from cad_exp.models.pipeline import DiffusionModel

    return DiffusionModel.load(tiny_folder, device="cpu", name="tiny", steps=4)


@pytest.fixture(scope="session")
def tiny_v_model(tiny_v_folder):
    from cad_exp.models.pipeline import DiffusionModel

    return DiffusionModel.load(tiny_v_folder, device="cpu", name="tiny_v", steps=4)


@pytest.fixture(scope="session")
def tiny_latents(tiny_model):
    """Two seeded trajectories of five steps."""
    from cad_exp.data.noisy_latents import sample_trajectory

    return sample_trajectory(tiny_model, "church", "", seeds=[0, 1], steps=5)


@pytest.fixture(scope="session")
def tiny_attribution(tiny_model, tiny_latents):
    from cad_exp.attribution.attribute import attribute

    return attribute(tiny_model, tiny_latents)
