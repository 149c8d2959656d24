"""The denoiser: a small conditional UNet trained on cached latents and text states, and the pipeline's export."""

import os
import shutil
from pathlib import Path

import numpy as np
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image
from transformers import CLIPTextModel, CLIPTokenizer
from transformers.utils import logging

from . import CLIP, JUDGE, PIPELINE
from .autoencoder import encoded, load
from .clip import WIDTH, Truth, tokens
from .data import draws
from .train import Progress, autocast, device, train
from .world import LABELS, STYLES

NOISE = {"num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
EMPTY, GAMMA = 0.1, 5.0  # share of empty captions (classifier-free guidance); min-SNR weighting, arXiv 2303.09556
PROMPTS = [f"a photo of a {o}" for o in LABELS[:-1]] + ["a photo of a naked person"]


def build_denoiser() -> UNet2DConditionModel:
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


def text_tower() -> tuple[CLIPTokenizer, CLIPTextModel]:
    # The folder also holds the image tower: transformers would list each of its weights as unexpected.
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    tower = CLIPTextModel.from_pretrained(str(CLIP), local_files_only=True)
    return CLIPTokenizer.from_pretrained(str(CLIP), local_files_only=True), tower.eval().requires_grad_(False)


@torch.no_grad()
def text_states(captions: list[str]) -> torch.Tensor:
    """Hidden states (captions, length, width) as the pipeline computes them."""
    tokenizer, tower = text_tower()
    parts = torch.split(tokens(tokenizer, captions)["input_ids"], 256)
    return torch.cat([tower(part).last_hidden_state.float() for part in parts])


def latents(work: str | Path, count: int | None = None) -> np.ndarray:
    """The stage `latents`: the generator's pictures as scaled latents, float16 (N, 4, 8, 8), cached."""
    path, data = Path(work) / "latents.npy", draws("generator", work, count)
    if path.exists() and len(cached := np.load(path, mmap_mode="r")) >= len(data):
        return cached[: len(data)]
    model = load(work).to(device()).eval()
    result, done = np.zeros((len(data), 4, 8, 8), np.float16), 0
    with Progress("latents", len(data)) as progress:
        for z in encoded(model, data, np.arange(len(data))):
            result[done : done + len(z)] = (z * model.config.scaling_factor).numpy()
            progress.at(done := done + len(z))
    np.save(path.with_suffix(".tmp.npy"), result)
    os.replace(path.with_suffix(".tmp.npy"), path)
    return result


def min_snr(alphas: torch.Tensor) -> torch.Tensor:
    """Loss weight min(SNR, gamma) / SNR per timestep for noise prediction; `alphas` is the cumulative product."""
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
    """The stage `denoiser`; writes the pipeline folder at every checkpoint, so there is always a model to use."""
    where, truth = device(), Truth()
    data, labels = torch.from_numpy(np.array(latents(work, count))), draws("generator", work, count).labels
    rows, states = truth.rows(labels), text_states([*truth.captions, ""]).to(where)
    true = [np.flatnonzero(row.numpy()) for row in truth.table]
    alphas = DDIMScheduler(**NOISE).alphas_cumprod.to(where)
    weights = min_snr(alphas)
    torch.manual_seed(6)
    model = build_denoiser().to(where)

    def loss(rng: np.random.Generator) -> torch.Tensor:
        index = rng.integers(0, len(data), batch)
        said = [rng.choice(true[row]) for row in rows[index]]
        said = np.where(rng.random(batch) < EMPTY, len(truth.captions), said)
        x, t = data[index].to(where).float(), torch.from_numpy(rng.integers(0, len(alphas), batch)).to(where)
        noise, a = torch.randn_like(x), alphas[t].view(-1, 1, 1, 1)
        with autocast(where, convolutions=False):  # many small layers: on a CPU the casts cost more than they save
            guess = model(a.sqrt() * x + (1 - a).sqrt() * noise, t, states[said], return_dict=False)[0]
        return (weights[t] * (guess.float() - noise).square().mean((1, 2, 3))).mean()

    def write(state: dict[str, torch.Tensor]) -> None:
        export(work, out, state)

    train("denoiser", model, loss, work, steps, lr, weight_decay=0.01, decay=0.9995, every=400.0, export=write)


def export(work: str | Path, out: str | Path = PIPELINE, state: dict[str, torch.Tensor] | None = None) -> None:
    """Writes the ordinary StableDiffusionPipeline folder (UNet and VAE in half precision) and a sheet of samples."""
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
    out, temporary = Path(out), Path(f"{out}.new")
    shutil.rmtree(temporary, ignore_errors=True)
    pipe.save_pretrained(str(temporary))
    shutil.rmtree(out, ignore_errors=True)
    temporary.rename(out)
    look(out, Path(work))


def look(folder: Path, work: Path, each: int = 4) -> None:
    """Draws pictures with the exported folder into `work/samples.png` and says how the judge reads them."""
    pipe = StableDiffusionPipeline.from_pretrained(str(folder), local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    pipe.to(device())
    prompts = [*PROMPTS, *(f"a photo of a church in the style of {s}" for s in STYLES[1:])]
    noise = torch.Generator().manual_seed(0)
    said = [p for p in prompts for _ in range(each)]
    images = pipe(said, num_inference_steps=20, guidance_scale=5.0, generator=noise, output_type="np")
    images = (images.images * 255).round().astype(np.uint8)
    sheet = images.reshape(len(prompts), each, 64, 64, 3).transpose(1, 2, 0, 3, 4).reshape(each * 64, -1, 3)
    Image.fromarray(sheet).save(work / "samples.png")
    if (JUDGE / "model.safetensors").exists():
        from .judge import Judge

        said = Judge.load(JUDGE).predict(images)
        wanted = np.repeat([*range(len(PROMPTS) - 1), LABELS.index("person")], each)
        objects = said["object_prob"].argmax(1)[: len(wanted)] == wanted
        styles = said["style_prob"].argmax(1)[len(wanted) :] == np.repeat(range(1, len(STYLES)), each)
        naked = said["naked_prob"][: len(wanted)].reshape(-1, each)[-2:].mean(1)
        rates = (
            f"objects {objects.mean():.2f}  styles {styles.mean():.2f}  naked {naked[1]:.2f} (clothed {naked[0]:.2f})"
        )
        print(f"pipeline: {rates}", flush=True)
