"""The networks that are measured: the embedded model, and Stable Diffusion 1.4's shape with random weights."""

from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

import cad_exp
from cad_exp import DiffusionModel
from cad_exp.utils.errors import choose

MODELS = ("mini", "sd14_shape")


def load(name: str) -> DiffusionModel:
    """A model by name, on the GPU in bf16 if there is one. UserError for an unknown name."""
    if choose(name, MODELS, "model") == "mini":
        return DiffusionModel.load("mini", steps=12, guidance=4.0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with torch.device(device):
        pipe = sd14_shape()
    return DiffusionModel(pipe.to(device, torch.bfloat16 if device.type == "cuda" else torch.float32), name)


def sd14_unet() -> UNet2DConditionModel:
    """The denoiser of Stable Diffusion 1.x with random weights: 859,520,964 parameters, 256 heads, 49,920 neurons."""
    return UNet2DConditionModel(
        sample_size=64,
        block_out_channels=(320, 640, 1280, 1280),
        layers_per_block=2,
        cross_attention_dim=768,
        attention_head_dim=8,  # diffusers reads it as the number of heads
    ).eval()


def sd14_shape() -> StableDiffusionPipeline:
    """A pipeline of Stable Diffusion 1.4's sizes with random weights; only the tokenizer is the embedded model's."""
    folder = Path(cad_exp.__file__).parent / "mini/weights/pipeline/tokenizer"
    tokenizer = CLIPTokenizer.from_pretrained(folder, model_max_length=77)
    text = CLIPTextConfig(
        hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12, vocab_size=49408
    )
    vae = AutoencoderKL(
        block_out_channels=(128, 256, 512, 512),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        latent_channels=4,
        sample_size=512,
    )
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    torch.manual_seed(0)
    encoder = CLIPTextModel(text).eval()
    return StableDiffusionPipeline(
        vae.eval(), encoder, tokenizer, sd14_unet(), scheduler, None, None, requires_safety_checker=False
    )
