"""The wrapper: loading, seeds, noise schedule, generation."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from cad_exp.models.pipeline import DiffusionModel
from cad_exp.utils.errors import UserError, choose


def test_import_is_light():
    code = "import cad_exp, sys; cad_exp.UserError; sys.exit(any(m in sys.modules for m in ('torch', 'hydra')))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_every_public_name_exists():
    import cad_exp

    assert all(getattr(cad_exp, name) is not None for name in cad_exp.__all__)
    with pytest.raises(AttributeError):
        getattr(cad_exp, "nothing")  # noqa: B009


def test_choose_suggests():
    assert choose("church", ["church", "tench"], "concept") == "church"
    with pytest.raises(UserError, match="unknown concept 'nudty': did you mean 'nudity'.*church"):
        choose("nudty", ["nudity", "church"], "concept")
    with pytest.raises(UserError, match="unknown concept 'zzz': There are: nudity"):
        choose("zzz", ["nudity"], "concept")


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("./nowhere", "no model folder"),
        ("/nowhere/at/all", "no model folder"),
        ("nowhere", "no model folder"),
        ("nobody-here/no-such-model", "cannot load the model.*network"),
    ],
)
def test_missing_model(path, says):
    with pytest.raises(UserError, match=says):
        DiffusionModel.load(path, device="cpu")


def test_broken_folder(tmp_path):
    with pytest.raises(UserError, match="model_index.json"):
        DiffusionModel.load(tmp_path, device="cpu")
    (tmp_path / "model_index.json").write_text("{")
    with pytest.raises(UserError, match="complete diffusers folder"):
        DiffusionModel.load(tmp_path, device="cpu")


def test_unknown_device_and_precision(tiny_folder):
    with pytest.raises(UserError, match="unknown device 'cpuu': did you mean 'cpu'"):
        DiffusionModel.load(tiny_folder, device="cpuu")
    with pytest.raises(UserError, match="unknown precision 'fp8'"):
        DiffusionModel.load(tiny_folder, device="cpu", precision="fp8")


def test_loaded(tiny_model, tiny_v_model):
    assert (tiny_model.resolution, tiny_model.dtype) == (16, torch.float32)
    assert (tiny_model.prediction_type, tiny_v_model.prediction_type) == ("epsilon", "v_prediction")
    assert tiny_model.encode(["church", ""]).text.shape == (2, 16, 32)
    assert not any(p.requires_grad for p in tiny_model.denoiser.parameters())


def test_low_precision_predicts_fp32(tiny_folder, tiny_model):
    model = DiffusionModel.load(tiny_folder, device="cpu", precision="bf16")
    x, t = model.noise_like([0]), torch.tensor([500])
    low, full = (m.predict(x, t, m.encode(["church"])) for m in (model, tiny_model))
    assert model.dtype == torch.bfloat16 and low.dtype == torch.float32
    torch.testing.assert_close(low, full, atol=0.1, rtol=0.1)


def test_fingerprint_sees_one_weight(tiny_model):
    before = tiny_model.fingerprint()
    weight = next(tiny_model.denoiser.parameters()).data.view(-1)
    old = weight[0].item()
    weight[0] += 1e-3
    after = tiny_model.fingerprint()
    weight[0] = old
    assert len(before) == 16 and before != after and tiny_model.fingerprint() == before


def test_noise_depends_on_its_own_seed_only(tiny_model):
    assert torch.equal(tiny_model.noise_like([3, 7])[1], tiny_model.noise_like([7])[0])
    assert not torch.equal(*tiny_model.noise_like([3, 7]))


def test_trajectory_is_seeded(tiny_model):
    def walk(seeds):
        return torch.stack([step.x for step in tiny_model.trajectory("church", "", seeds, steps=4)])

    assert torch.equal(walk([5, 6]), walk([5, 6]))
    torch.testing.assert_close(walk([5, 6])[:, 1:], walk([6]), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(walk([5]), walk([6]))


def test_pndm_config_does_not_clip(tiny_folder):
    from diffusers import PNDMScheduler, StableDiffusionPipeline

    pipe = StableDiffusionPipeline.from_pretrained(tiny_folder, safety_checker=None)
    pipe.scheduler = PNDMScheduler(beta_schedule="scaled_linear", skip_prk_steps=True)
    assert DiffusionModel(pipe).sampler(4).config.clip_sample is False


def test_steps_out_of_range(tiny_model):
    with pytest.raises(UserError, match="1 to 1000"):
        next(tiny_model.trajectory("church", "", [0], steps=0))


def test_generate(tiny_model):
    seen = []
    prompts, seeds = ["church", "tench", "church"], [1, 1, 2]
    images = tiny_model.generate(prompts, seeds, batch_size=2, progress=lambda *count: seen.append(count))
    assert images.shape == (3, 16, 16, 3) and images.dtype == np.uint8
    alone = tiny_model.generate(["church"], [2])
    assert np.abs(images[2].astype(int) - alone[0]).max() <= 1
    assert seen[-1] == (12, 12) and seen == sorted(seen)
    assert np.array_equal(images, tiny_model.generate(prompts, seeds, batch_size=2))
    pictures = tiny_model.generate(prompts, seeds, batch_size=2, output_type="pil")
    assert np.array_equal(np.stack([np.asarray(picture) for picture in pictures]), images)
    with pytest.raises(UserError, match="one seed per prompt"):
        tiny_model.generate(["church"], [1, 2])
    with pytest.raises(UserError, match="output_type 'pli': did you mean 'pil'"):
        tiny_model.generate(["church"], [1], output_type="pli")


def test_generate_is_the_pipelines_own_call(tiny_model, tiny_pipe):
    tiny_pipe.set_progress_bar_config(disable=True)
    latents = tiny_model.noise_like([4])
    plain = tiny_pipe("church", latents=latents, num_inference_steps=4, guidance_scale=7.5, output_type="np").images
    assert np.array_equal(tiny_model.generate(["church"], [4])[0], (plain[0] * 255).round().astype(np.uint8))


def test_encode_images_centres_and_scales(tiny_model):
    images = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)
    latents = tiny_model.encode_images(images, batch_size=2)
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2) / 255 * 2 - 1
    expected = tiny_model.pipe.vae.encode(pixels).latent_dist.mean * tiny_model.pipe.vae.config.scaling_factor
    assert latents.shape == (3, 4, 8, 8)
    torch.testing.assert_close(latents, expected.detach(), atol=1e-5, rtol=1e-4)


def test_noise_and_targets(tiny_model, tiny_v_model):
    latents, noise, t = torch.ones(2, 4, 8, 8), torch.full((2, 4, 8, 8), 3.0), torch.tensor([0, 999])
    signal = tiny_model.sampler().alphas_cumprod[t].view(2, 1, 1, 1)
    x = tiny_model.add_noise(latents, noise, t)
    torch.testing.assert_close(x, signal.sqrt() * latents + (1 - signal).sqrt() * noise)
    assert torch.equal(tiny_model.target(latents, noise, t), noise)
    v = signal.sqrt() * noise - (1 - signal).sqrt() * latents
    torch.testing.assert_close(tiny_v_model.target(latents, noise, t), v)


def test_an_image_that_is_not_finite_is_never_returned(tiny_folder):
    """One NaN in a weight: the run says which image, where, and which weight; an infinite pixel is not white."""
    model = DiffusionModel.load(tiny_folder, device="cpu", name="tiny", steps=2)
    with torch.no_grad():
        model.denoiser.conv_out.weight[0, 0, 0, 0] = float("nan")
    with pytest.raises(UserError, match=r"'b' with seed 3 \(latents after step 1.*unet.conv_out.weight") as raised:
        model.generate(["b", "a"], [3, 4], batch_size=1)
    assert "fp32" not in str(raised.value)
    with torch.no_grad():
        model.denoiser.conv_out.weight[0, 0, 0, 0] = 0
        model.pipe.vae.decoder.conv_out.bias[:] = float("inf")
    with pytest.raises(UserError, match=r"with seed 4 \(pixels from the decoder\).*vae.decoder.conv_out.bias"):
        model.generate(["a"], [4])
    with torch.no_grad():
        model.pipe.vae.decoder.conv_out.bias[:] = 3e38
        model.pipe.vae.decoder.conv_out.weight[:] = 3e38
    with pytest.raises(UserError, match="in fp32: numbers grow without bound"):
        model.generate(["a"], [4])


def test_one_text_is_one_prompt(tiny_model):
    assert (tiny_model.generate("a", [3], steps=2) == tiny_model.generate(["a"], [3], steps=2)).all()
