"""Tiny random pipelines of every family, built in code from diffusers' own classes: 16-pixel images, 8 x 8 latents.

Nothing here is trained. Their component counts are small enough to count by hand (tests/models/test_families.py).
"""

import string
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    PixArtAlphaPipeline,
    PixArtSigmaPipeline,
    PixArtTransformer2DModel,
    PNDMScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
)

NOISE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def words() -> PreTrainedTokenizerFast:
    """A tokenizer for T5's place that needs no sentencepiece model: a token for every character, `</s>` at the end."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors

    tokens = ["<pad>", "</s>", "<unk>", *string.ascii_lowercase, *string.digits, " "]
    tokenizer = Tokenizer(models.WordLevel({token: i for i, token in enumerate(tokens)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=12
    )


def vae(channels: int = 4, **settings: float) -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=channels,
        norm_num_groups=4,
        sample_size=16,
        **settings,
    )


def clip(tokenizer, projection: int | None = None):
    """A two-layer CLIP text model of width 32, four heads and 64 hidden units; with a projection where one is asked."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=16,
        projection_dim=projection or 32,
        hidden_act="gelu",
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModelWithProjection(config) if projection else CLIPTextModel(config)


def t5(tokenizer, width: int = 32) -> T5EncoderModel:
    config = T5Config(vocab_size=len(tokenizer), d_model=width, d_kv=8, d_ff=37, num_layers=2, num_heads=4)
    return T5EncoderModel(config)


def sd14(tokenizer) -> StableDiffusionPipeline:
    """Stable Diffusion 1.4 as its folder is on the hub, but narrow: the same blocks, scheduler and safety checker.

    64-pixel images from latents of 8 x 8, a UNet with 16 transformer blocks.
    """
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16, 16, 16),
        layers_per_block=2,
        down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
        cross_attention_dim=32,
        attention_head_dim=8,  # diffusers reads it as the number of heads
        norm_num_groups=8,
    )
    autoencoder = AutoencoderKL(
        block_out_channels=(8, 8, 16, 16),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=64,
    )
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    seen = CLIPConfig(vision_config=small | {"image_size": 32, "patch_size": 8}, text_config=small, projection_dim=8)
    scheduler = PNDMScheduler(**NOISE, set_alpha_to_one=False, skip_prk_steps=True, steps_offset=1)
    checker, images = StableDiffusionSafetyChecker(seen), CLIPImageProcessor(size=32, crop_size=32)
    return StableDiffusionPipeline(autoencoder, clip(tokenizer), tokenizer, unet, scheduler, checker, images)


def sdxl(tokenizer) -> StableDiffusionXLPipeline:
    """Two levels, the second with two transformer blocks; text states 32 + 32 wide, six size numbers, pooled 32."""
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2),
        cross_attention_dim=64,
        attention_head_dim=(2, 4),  # diffusers reads it as the number of heads
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + 32,
        norm_num_groups=8,
    )
    return StableDiffusionXLPipeline(
        vae(),
        clip(tokenizer),
        clip(tokenizer, 32),
        tokenizer,
        tokenizer,
        unet,
        EulerDiscreteScheduler(**NOISE, steps_offset=1, timestep_spacing="leading"),
        force_zeros_for_empty_prompt=True,
        add_watermarker=False,
    )


def sd3(tokenizer, with_t5: bool = True, width: int = 80) -> StableDiffusion3Pipeline:
    """Three blocks of four heads of width 8; the first also attends within the image (`attn2`), as in SD3.5-medium.

    width: of the text states, T5's; the two CLIPs side by side have 64.
    """
    transformer = SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=4,
        num_layers=3,
        attention_head_dim=8,
        num_attention_heads=4,
        joint_attention_dim=width,
        caption_projection_dim=32,
        pooled_projection_dim=64,
        out_channels=4,
        pos_embed_max_size=8,
        dual_attention_layers=(0,),
        qk_norm="rms_norm",
    )
    encoders = [clip(tokenizer, 32), tokenizer, clip(tokenizer, 32), tokenizer]
    extra = words()
    encoders += [t5(extra, width), extra] if with_t5 else [None, None]
    return StableDiffusion3Pipeline(
        transformer, FlowMatchEulerDiscreteScheduler(shift=3.0), vae(shift_factor=0.1), *encoders
    )


def pixart(tokenizer, alpha: bool = False) -> PixArtSigmaPipeline | PixArtAlphaPipeline:
    """Two blocks of four heads of width 12, learned variance; `alpha`: with conditions on resolution and aspect ratio.

    PixArt-alpha has them where its latents are 128 x 128; images of 16 pixels must be asked for there.
    """
    transformer = PixArtTransformer2DModel(
        num_attention_heads=4,
        attention_head_dim=12,
        in_channels=4,
        out_channels=8,
        num_layers=2,
        cross_attention_dim=48,
        sample_size=128 if alpha else 8,
        patch_size=2,
        caption_channels=32,
    )
    extra, kind = words(), PixArtAlphaPipeline if alpha else PixArtSigmaPipeline
    return kind(extra, t5(extra), vae(), transformer, DPMSolverMultistepScheduler())


def flux(tokenizer, dev: bool = False) -> FluxPipeline:
    """One double-stream and two single-stream blocks of four heads of width 8; `dev`: with a guidance embedding."""
    transformer = FluxTransformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=2,
        attention_head_dim=8,
        num_attention_heads=4,
        joint_attention_dim=32,
        pooled_projection_dim=32,
        guidance_embeds=dev,
        axes_dims_rope=(2, 2, 4),
    )
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0 if dev else 1.0, use_dynamic_shifting=dev)
    extra = words()
    return FluxPipeline(scheduler, vae(shift_factor=0.1), clip(tokenizer), tokenizer, t5(extra), extra, transformer)


BUILDERS = {
    "sdxl": sdxl,
    "sd3": sd3,
    "sd3_without_t5": lambda tokenizer: sd3(tokenizer, with_t5=False),
    "pixart": pixart,
    "pixart_alpha": lambda tokenizer: pixart(tokenizer, alpha=True),
    "flux_schnell": flux,
    "flux_dev": lambda tokenizer: flux(tokenizer, dev=True),
}


LARGER = {"sd14": sd14}  # images of 64 pixels, which the judges need


def build(name: str, folder: Path) -> Path:
    """Write the tiny pipeline of a family into `folder`, from seed 0."""
    from tests.conftest import _tokenizer

    torch.manual_seed(0)
    tokenizer = _tokenizer(folder.parent / f"{folder.name}-tokenizer")
    (BUILDERS | LARGER)[name](tokenizer).save_pretrained(folder)
    return folder
