"""The denoiser of `mini`: a small conditional UNet trained on cached latents and text states, and its pipeline."""

from pathlib import Path

import numpy as np
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, StableDiffusionPipeline, UNet2DConditionModel

from cad_exp.mini import PIPELINE
from cad_exp.mini.autoencoder import load
from cad_exp.mini.clip import WIDTH, text_tower, tokens
from cad_exp.mini.pairs import Pairs
from cad_exp.mini.publish import publish
from cad_exp.mini.train import autocast, device, train

NOISE = {"num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
GAMMA = 5.0  # min-SNR weighting, arXiv 2303.09556


def build_denoiser() -> UNet2DConditionModel:
    """Build the untrained UNet."""
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        block_out_channels=(64, 128),
        layers_per_block=1,
        norm_num_groups=16,
        down_block_types=("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2,
        attention_head_dim=4,
        cross_attention_dim=WIDTH,  # in this class attention_head_dim is the number of heads
    )


@torch.no_grad()
def text_states(captions: list[str]) -> torch.Tensor:
    """Return hidden states (captions, length, width) as the pipeline computes them."""
    tokenizer, tower = text_tower()
    parts = torch.split(tokens(tokenizer, captions)["input_ids"], 256)
    return torch.cat([tower(part).last_hidden_state.float() for part in parts])


def min_snr(alphas: torch.Tensor) -> torch.Tensor:
    """Return the loss weight min(SNR, gamma) / SNR per timestep; alphas: the cumulative product."""
    snr = alphas / (1 - alphas)
    return snr.clamp(max=GAMMA) / snr


def run(
    work: str | Path,
    steps: int = 2800,
    batch: int = 64,
    lr: float = 8e-4,
    out: str | Path = PIPELINE,
    count: int | None = None,
) -> None:
    """Run the stage `denoiser`: train, and write the pipeline folder at every checkpoint."""
    where, pairs = device(), Pairs(work, count)
    states = text_states(pairs.captions).to(where)
    alphas = DDIMScheduler(**NOISE).alphas_cumprod.to(where)
    weights = min_snr(alphas)
    torch.manual_seed(6)
    model = build_denoiser().to(where)

    def loss(rng: np.random.Generator) -> torch.Tensor:
        x, said = pairs.draw(rng, batch)
        x, t = x.to(where), torch.from_numpy(rng.integers(0, len(alphas), batch)).to(where)
        noise, a = torch.randn_like(x), alphas[t].view(-1, 1, 1, 1)
        with autocast(where, convolutions=False):  # many small layers: on a CPU the casts cost more than they save
            guess: torch.Tensor = model(a.sqrt() * x + (1 - a).sqrt() * noise, t, states[said], return_dict=False)[0]
        return (weights[t] * (guess.float() - noise).square().mean((1, 2, 3))).mean()

    def write(state: dict[str, torch.Tensor]) -> None:
        export(work, out, state)

    train("denoiser", model, loss, work, steps, lr, weight_decay=0.01, decay=0.9995, every=400.0, export=write)


def export(work: str | Path, out: str | Path = PIPELINE, state: dict[str, torch.Tensor] | None = None) -> None:
    """Write the ordinary StableDiffusionPipeline folder (UNet and VAE in half precision) and a sheet of samples."""
    if state is None:
        state = torch.load(Path(work) / "denoiser.pt", map_location="cpu", weights_only=True)["ema"]
    unet, (tokenizer, tower) = build_denoiser(), text_tower()
    unet.load_state_dict(state)
    scheduler = DPMSolverMultistepScheduler(**NOISE, timestep_spacing="trailing", steps_offset=1)
    vae = load(work).half()
    vae.register_to_config(_name_or_path="")  # not the path of the machine that trained it
    pipe = StableDiffusionPipeline(
        vae, tower, tokenizer, unet.half(), scheduler, None, None, requires_safety_checker=False
    )
    publish(pipe, out, Path(work))
