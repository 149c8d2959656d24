"""The denoiser of `mini_dit`: a small Stable Diffusion 3 transformer trained by flow matching, and its pipeline.

It shares the world, the autoencoder and the CLIP with `mini`. Stable Diffusion 3 reads two CLIP encoders: here the same
text tower twice, its last but one hidden states side by side, and no T5.
"""

from pathlib import Path

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline
from torch import nn
from transformers import CLIPTextModelWithProjection

from cad_exp.mini import PIPELINE_DIT
from cad_exp.mini.autoencoder import load
from cad_exp.mini.clip import PROJECTION, WIDTH, text_tower, tokens
from cad_exp.mini.pairs import Pairs
from cad_exp.mini.publish import publish
from cad_exp.mini.train import autocast, device, train

DEPTH, HIDDEN, HEADS = 6, 128, 4


def build_transformer() -> SD3Transformer2DModel:
    """Build the untrained network: adaptive norms and the output at zero (DiT, arXiv 2212.09748, section 3.2)."""
    model = SD3Transformer2DModel(
        sample_size=8,
        patch_size=1,
        in_channels=4,
        out_channels=4,
        num_layers=DEPTH,
        attention_head_dim=HIDDEN // HEADS,
        num_attention_heads=HEADS,
        joint_attention_dim=2 * WIDTH,
        caption_projection_dim=HIDDEN,
        pooled_projection_dim=2 * PROJECTION,
        pos_embed_max_size=8,
        qk_norm="rms_norm",
    )
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            silent = name.endswith((".norm1.linear", ".norm1_context.linear")) or name in (
                "norm_out.linear",
                "proj_out",
            )
            (nn.init.zeros_ if silent else nn.init.xavier_uniform_)(module.weight)
            nn.init.zeros_(module.bias)
    return model


@torch.no_grad()
def text_states(captions: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return hidden states (captions, length, 2 width) and pooled ones (captions, 2 projection), as the pipeline's."""
    tokenizer, tower = text_tower(CLIPTextModelWithProjection)
    parts = torch.split(tokens(tokenizer, captions)["input_ids"], 256)
    said = [tower(part, output_hidden_states=True) for part in parts]
    states = torch.cat([out.hidden_states[-2] for out in said]).repeat(1, 1, 2)
    return states.float(), torch.cat([out.text_embeds for out in said]).repeat(1, 2).float()


def run(
    work: str | Path,
    steps: int = 1800,
    batch: int = 64,
    lr: float = 1e-3,
    out: str | Path = PIPELINE_DIT,
    count: int | None = None,
) -> None:
    """Run the stage `transformer`: train, and write the pipeline folder at every checkpoint.

    Rectified flow with the noise levels' logits drawn from a normal distribution (arXiv 2403.03206, section 3.1).
    """
    where, pairs = device(), Pairs(work, count)
    states, pooled = (part.to(where) for part in text_states(pairs.captions))
    torch.manual_seed(7)
    model = build_transformer().to(where)

    def loss(rng: np.random.Generator) -> torch.Tensor:
        x, said = pairs.draw(rng, batch)
        x = x.to(where)
        noise, s = torch.randn_like(x), torch.randn(batch, device=where).sigmoid()
        share = s.view(-1, 1, 1, 1)
        with autocast(where):
            guess: torch.Tensor = model(
                hidden_states=(1 - share) * x + share * noise,
                timestep=1000 * s,
                encoder_hidden_states=states[said],
                pooled_projections=pooled[said],
                return_dict=False,
            )[0]
        return (guess.float() - (noise - x)).square().mean()

    def write(state: dict[str, torch.Tensor]) -> None:
        export(work, out, state)

    train("transformer", model, loss, work, steps, lr, weight_decay=0.01, decay=0.9995, every=400.0, export=write)


def export(work: str | Path, out: str | Path = PIPELINE_DIT, state: dict[str, torch.Tensor] | None = None) -> None:
    """Write the ordinary StableDiffusion3Pipeline folder (all networks in half precision) and a sheet of samples."""
    if state is None:
        state = torch.load(Path(work) / "transformer.pt", map_location="cpu", weights_only=True)["ema"]
    transformer, (tokenizer, tower) = build_transformer(), text_tower(CLIPTextModelWithProjection)
    transformer.load_state_dict(state)
    vae = load(work).half()
    vae.register_to_config(_name_or_path="", shift_factor=0.0)  # not the path of the machine that trained it
    scheduler, tower = FlowMatchEulerDiscreteScheduler(shift=1.0), tower.half()
    pipe = StableDiffusion3Pipeline(transformer.half(), scheduler, vae, tower, tokenizer, tower, tokenizer, None, None)
    publish(pipe, out, work)
