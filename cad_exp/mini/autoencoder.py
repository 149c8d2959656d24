"""The learned KL autoencoder: 64 x 64 x 3 pictures to 8 x 8 x 4 latents, a diffusers `AutoencoderKL`."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL

from cad_exp.mini.data import Draws, draws
from cad_exp.mini.judge_network import Judge, train_judge
from cad_exp.mini.train import autocast, batches, device, train

CHANNELS = (32, 32, 64, 128)
PERCEPTUAL, KL = 0.15, 1e-3  # weights beside the mean absolute error; KL is the mean over latent dimensions, in nats


def build_autoencoder() -> AutoencoderKL:
    """Build the untrained autoencoder."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=CHANNELS,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=64,
        mid_block_add_attention=False,
    )


def perceptual_network(work: str | Path, steps: int, count: int | None) -> Judge:
    """Train a judge-like network by its own seed and draws, so that the real judge stays an outsider."""
    return train_judge(work, "perceptual", "clip", steps, seed=4, count=count)


def run(
    work: str | Path, steps: int = 4200, batch: int = 16, count: int | None = None, out: str | Path | None = None
) -> None:
    """Run the stage `autoencoder`: absolute error, perceptual distance and a small KL; then the latents' scale."""
    where, data = device(), draws("generator", work, count)
    network = perceptual_network(work, min(700, steps), count)
    torch.manual_seed(5)
    model = build_autoencoder().to(where)

    def loss(rng: np.random.Generator) -> dict[str, torch.Tensor]:
        x = data.tensor(np.sort(rng.integers(0, len(data), batch)), where)
        with autocast(where):
            posterior = model.encode(x).latent_dist
            y = model.decode(posterior.sample()).sample.float()
            perceptual = network.distance(y, x).mean()
        mean, logvar = posterior.mean.float(), posterior.logvar.float()
        kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
        error = (y - x).abs().mean()
        return {"loss": error + PERCEPTUAL * perceptual + KL * kl, "l1": error, "perceptual": perceptual, "kl": kl}

    state = train("autoencoder", model, loss, work, steps, lr=1.5e-3, weight_decay=0.0, decay=0.998)
    model.load_state_dict(state)
    model.eval().requires_grad_(False)
    latents = torch.cat([z for z in encoded(model, data, np.arange(0, len(data), max(1, len(data) // 2000)))])
    model.register_to_config(scaling_factor=float(1 / latents.std()))
    save(model, work)
    (Path(work) / "latents.npy").unlink(missing_ok=True)  # those were another encoder's
    report(model, network, draws("test", work, count))


def refine(
    work: str | Path, steps: int = 3000, batch: int = 16, count: int | None = None, out: str | Path | None = None
) -> None:
    """Run the stage `decoder`: train the decoder on, under a frozen encoder.

    Latents, and so the denoiser, stay valid.
    """
    where, data = device(), draws("generator", work, count)
    network = perceptual_network(work, min(700, steps), count)
    model = load(work).to(where)
    model.encoder.requires_grad_(False)
    model.quant_conv.requires_grad_(False)
    decoder = torch.nn.ModuleDict({"post_quant_conv": model.post_quant_conv, "decoder": model.decoder})

    def loss(rng: np.random.Generator) -> dict[str, torch.Tensor]:
        x = data.tensor(np.sort(rng.integers(0, len(data), batch)), where)
        with autocast(where):
            with torch.no_grad():
                z = model.encode(x).latent_dist.sample()
                # The denoiser's samples are never quite on the encoder's manifold.
                z = z + 0.05 / model.config.scaling_factor * torch.randn_like(z)
            y = model.decode(z).sample.float()
            perceptual = network.distance(y, x).mean()
        error = (y - x).abs().mean()
        return {"loss": error + PERCEPTUAL * perceptual, "l1": error, "perceptual": perceptual}

    decoder.load_state_dict(train("decoder", decoder, loss, work, steps, lr=1e-3, weight_decay=0.0, decay=0.998))
    model.eval().requires_grad_(False)
    save(model, work)
    report(model, network, draws("test", work, count))


def save(model: AutoencoderKL, work: str | Path) -> None:
    """Write the autoencoder into the folder `vae` of the work folder."""
    model.save_pretrained(str(Path(work) / "vae"))


def load(work: str | Path) -> AutoencoderKL:
    """Read the autoencoder from the folder `vae` of the work folder."""
    return AutoencoderKL.from_pretrained(str(Path(work) / "vae"), local_files_only=True)


@torch.no_grad()
def encoded(model: AutoencoderKL, data: Draws, index: np.ndarray, batch: int = 100) -> Iterator[torch.Tensor]:
    """Yield the posterior's means, unscaled, (batch, 4, 8, 8) float32 on the CPU, for these pictures."""
    for part in batches(len(index), batch):
        with autocast(model.device):
            mean = model.encode(data.tensor(index[part], model.device)).latent_dist.mean
        yield mean.float().cpu()


@torch.no_grad()
def report(model: AutoencoderKL, network: Judge, data: Draws, number: int = 400) -> dict[str, float]:
    """Measure the reconstruction of held-out draws: PSNR in dB, mean absolute error in [0, 1], perceptual distance."""
    x = data.tensor(np.arange(min(number, len(data))), model.device)
    y = torch.cat([model.decode(model.encode(part).latent_dist.mode()).sample for part in x.split(50)]).clamp(-1, 1)
    error = (x - y) / 2
    psnr = float((-10 * error.square().mean((1, 2, 3)).log10()).mean())
    scores = {"psnr": psnr, "l1": float(error.abs().mean()), "perceptual": float(network.distance(x, y).mean())}
    print("autoencoder on held-out draws: " + "  ".join(f"{k} {v:.4f}" for k, v in scores.items()), flush=True)
    return scores
