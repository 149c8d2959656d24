"""The image tower of a CLIP as a rival: what it gives is what the network of the world's own CLIP score computes."""

import numpy as np
import pytest
import torch

from cad_exp.mini import CLIP
from cad_exp.mini.clip import Clip
from cad_exp.mini.data import to_tensor
from cad_exp.models import image_encoders
from cad_exp.representations.image_encoder import ImageEncoder
from cad_exp.utils.errors import UserError


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3), np.uint8)


@torch.no_grad()
def test_it_is_the_tower_of_the_clip_score(images):
    own = Clip.load().model.vision_model(pixel_values=to_tensor(images, torch.device("cpu")))
    encoder = ImageEncoder(CLIP)
    torch.testing.assert_close(encoder.features(images, "mean", batch_size=2), own.pooler_output, atol=1e-4, rtol=1e-4)
    grid = encoder.features(images, "grid")
    assert grid.shape == (5, 64, 128)  # 8 x 8 patches; the token of the class is none of them
    torch.testing.assert_close(grid, own.last_hidden_state[:, 1:], atol=1e-4, rtol=1e-4)


def test_images_of_any_size_are_taken(images):
    wide = np.concatenate([images, images], 2)
    assert ImageEncoder(CLIP).features(wide, "mean").shape == (5, 128)


def test_what_is_no_clip_is_answered(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match="probe.image_encoder: .* holds no CLIP of transformers"):
        ImageEncoder(tmp_path)


def test_an_encoder_counts_by_its_content(tmp_path):
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((CLIP / name).read_bytes())
    before = image_encoders.content(str(tmp_path))
    assert image_encoders.chosen("auto", "mini") == image_encoders.chosen("auto", "mini_dit") == str(CLIP)
    (tmp_path / "config.json").write_text("{}")
    assert image_encoders.content(str(tmp_path)) != before
