"""A thin wrapper around a diffusers text-to-image pipeline; what differs between models: cad_exp.models.families."""

import hashlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline
from torch import Tensor, nn

from cad_exp.models.families import make_family
from cad_exp.models.families.condition import Condition
from cad_exp.models.model_folder import left_out, variant
from cad_exp.models.sources import locate
from cad_exp.utils import distributed
from cad_exp.utils.errors import UserError, choose
from cad_exp.utils.finite import Watch

Progress = Callable[[int, int], Any]
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass
class Step:
    """One point of a trajectory: latents x (B, C, h, w) at timestep t, and the intact predictions there, all fp32."""

    t: int
    x: Tensor
    cond: Tensor
    base: Tensor


class DiffusionModel:
    """A text-to-image pipeline of any family in cad_exp.models.families: text encoders, denoiser, VAE, scheduler.

    `steps`, `guidance` and `resolution` (pixels) are the defaults for `generate`. A guidance of 0 says that the model
    is guidance-distilled (SDXL-Turbo; FLUX is, whatever it says): trajectories and images are then made without
    guidance, and the base prompt's prediction is still made for the objectives that compare with it. Raises UserError
    for a pipeline of no known family.
    """

    def __init__(
        self,
        pipe: DiffusionPipeline,
        name: str = "model",
        steps: int = 50,
        guidance: float = 7.5,
        resolution: int | None = None,
    ):
        self.family = make_family(pipe, name, guidance)
        self.pipe, self.name, self.steps, self.guidance = self.family.pipe, name, int(steps), float(guidance)
        self.pipe.set_progress_bar_config(disable=True)
        for module in self.family.modules:
            module.eval().requires_grad_(False)  # only gates are ever differentiated
        self.resolution = self.family.check_resolution(resolution or self.family.resolution)

    @classmethod
    def load(
        cls,
        path: str | Path,
        revision: str | None = None,
        device: str = "auto",
        precision: str = "auto",
        steps: int = 50,
        guidance: float = 7.5,
        name: str | None = None,
        resolution: int | None = None,
    ) -> "DiffusionModel":
        """Load a diffusers folder, a hub id, or an embedded model (`mini`, `mini_dit`); the safety checker is left out.

        device: auto, cpu, cuda, cuda:1, mps. precision: auto (CUDA bf16, else fp32), fp32, bf16, fp16.
        Raises UserError with what to do when the model cannot be had.
        """
        device, precision = resolve(device, precision)
        dtype = PRECISIONS[precision]
        folder = locate(path)
        source, local = str(folder or path), folder is not None
        try:
            with warnings.catch_warnings():
                # torch_dtype is renamed in new diffusers, and the only name that the older supported ones know.
                warnings.simplefilter("ignore", FutureWarning)
                warnings.filterwarnings("ignore", message=".*local_dir_use_symlinks")  # diffusers' own, of load_config
                warnings.filterwarnings("ignore", message="Detected pickle protocol")  # it is refused, or read safely
                pipe = DiffusionPipeline.from_pretrained(
                    source,
                    revision=revision,
                    torch_dtype=dtype,
                    variant=variant(folder) if local else None,
                    local_files_only=local,
                    **left_out(DiffusionPipeline.load_config(source, revision=revision, local_files_only=local)),
                )
        except Exception as error:  # hub, network and file errors share no base class
            reason = " ".join(str(error).split())[:200]
            advice = (
                "check that it is a complete diffusers folder"
                if local
                else "check the id and the network, or download it elsewhere and use model=local model.path=FOLDER"
            )
            raise UserError(f"cannot load the model '{path}': {advice} ({type(error).__name__}: {reason})") from error
        return cls(pipe.to(device), name or str(path), steps, guidance, resolution)

    @property
    def denoiser(self) -> nn.Module:
        """The UNet or transformer."""
        return self.family.denoiser

    @property
    def networks(self) -> dict[str, nn.Module]:
        """Every network of the pipeline by its name in it."""
        return {name: part for name, part in self.pipe.components.items() if isinstance(part, nn.Module)}

    @property
    def device(self) -> torch.device:
        return next(self.denoiser.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.denoiser.parameters()).dtype

    @property
    def prediction_type(self) -> str:
        """What the denoiser's output means: epsilon, v_prediction or flow (the velocity from image to noise)."""
        return self.family.schedule.prediction_type

    def fingerprint(self) -> str:
        """First 16 hex digits of the SHA-256 of the denoiser's weights (names, types and bytes)."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.denoiser.state_dict().items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()[:16]

    def encode(self, prompts: Sequence[str], differentiable: bool = False) -> Condition:
        """What the prompts tell the denoiser, one row each, on the model's device.

        differentiable: whether gates in a text encoder may ask for gradients.
        """
        with torch.set_grad_enabled(differentiable and torch.is_grad_enabled()):
            return self.family.encode(prompts, self.device)

    def predict(self, x: Tensor, t: Tensor, condition: Condition, weights: dict[str, Tensor] | None = None) -> Tensor:
        """The network's raw output (eps, v or flow velocity), fp32, like latents x (B, C, h, w) at timesteps t (B,).

        condition: B rows, or one that stands for all. `weights` replaces parameters by name for this call only.
        Differentiable in everything.
        """
        x = x.to(self.device, self.dtype)
        condition = condition.to(self.device, self.dtype).expand(len(x))
        args, call = self.family.call(x, t.to(self.device), condition)
        call["return_dict"] = False
        if weights:
            # No parameter of a denoiser has two names; looking for such ones takes longer than a small forward pass.
            raw = torch.func.functional_call(self.denoiser, weights, args, call, tie_weights=False)[0]
        else:
            raw = self.denoiser(*args, **call)[0]
        return self.family.output(raw, x).float()

    def sampler(self, steps: int | None = None) -> Any:
        """A deterministic sampler with the noise schedule of the pipeline's own: DDIM, or Euler for flow matching.

        It has `timesteps`, `init_noise_sigma` and `step(prediction, t, x).prev_sample`, as those of diffusers do.
        UserError for steps that do not fit the schedule.
        """
        return self.family.schedule.sampler(steps, self.device, self.family.tokens(self.resolution))

    def timesteps(self, position: Tensor) -> Tensor:
        """Positions (n,) in 0..1 between image and noise to timesteps (n,) int64 of the model."""
        return self.family.schedule.timesteps(position)

    def noise_like(self, seeds: Sequence[int], size: tuple[int, int] | None = None) -> Tensor:
        """Standard normal latents (B, C, h, w) fp32, each from its own seed: the same in any batch, on any device.

        size: (height, width) of the images in pixels, if not the model's.
        """
        shape = self.family.latent_shape(*(size or (self.resolution, self.resolution)))
        noise = [torch.randn(shape, generator=torch.Generator().manual_seed(int(seed))) for seed in seeds]
        return torch.stack(noise).to(self.device)

    @torch.no_grad()
    def trajectory(
        self, prompt: str, base: str, seeds: Sequence[int], steps: int = 50, guidance: float = 3.0
    ) -> Iterator[Step]:
        """Walk seeded trajectories with classifier-free guidance, `base` being the guidance's negative branch.

        Yields `steps` Steps; each x is given with the timestep at which the network sees it, before the update. A
        distilled model follows the concept's prediction alone, or for guidance 0 the base prompt's.
        """
        scheduler, scale = self.sampler(steps), self.family.steering(guidance)
        states = self.encode([prompt, base]).repeat_interleave(len(seeds))
        x = self.noise_like(seeds) * scheduler.init_noise_sigma
        for t in scheduler.timesteps:
            cond, base_prediction = self.predict(torch.cat([x, x]), t.expand(2 * len(x)), states).chunk(2)
            yield Step(int(t), x, cond, base_prediction)
            x = scheduler.step(base_prediction + scale * (cond - base_prediction), t, x).prev_sample

    @torch.no_grad()
    def generate(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        steps: int | None = None,
        guidance: float | None = None,
        batch_size: int = 64,
        progress: Progress | None = None,
        size: tuple[int, int] | None = None,
    ) -> np.ndarray:
        """Images (N, H, W, 3) uint8, one per (prompt, seed), by the pipeline's own call; independent of batch_size.

        size: (height, width) in pixels, if not the model's. `progress(done, total)` counts steps times images.
        UserError, which names the prompt, the seed and the place, where a latent or a pixel is not finite.
        """
        prompts, seeds = list(prompts), [int(seed) for seed in seeds]
        if len(prompts) != len(seeds):
            raise UserError(f"{len(prompts)} prompts but {len(seeds)} seeds: give one seed per prompt")
        steps, guidance = steps or self.steps, self.guidance if guidance is None else guidance
        height, width = map(self.family.check_resolution, size or (self.resolution, self.resolution))
        images = []
        for start in range(0, len(prompts), batch_size):
            asked, batch = prompts[start : start + batch_size], seeds[start : start + batch_size]
            watch = Watch(asked, batch, self)

            def tick(
                done: int, latents: Tensor | None, start: int = start, rows: int = len(batch), watch: Watch = watch
            ) -> None:
                watch.latents(done, latents)
                if progress:
                    progress(start * steps + min(done, steps) * rows, len(prompts) * steps)

            generators = [torch.Generator().manual_seed(seed) for seed in batch]
            noise = self.noise_like(batch, (height, width))
            with watch.decoder(self.pipe.vae.decoder):
                made = self.family.generate(asked, noise, steps, guidance, generators, tick)
            watch.pixels(torch.from_numpy(made))
            images.append((made * 255).round().astype(np.uint8))
        return np.concatenate(images) if images else np.zeros((0, height, width, 3), np.uint8)

    @torch.no_grad()
    def encode_images(self, images: np.ndarray, batch_size: int = 16) -> Tensor:
        """Images (N, H, W, 3) uint8 to scaled latents (N, C, h, w) fp32: pixels in [-1, 1], the posterior's mode."""
        vae, latents = self.family.autoencoder, []
        for start in range(0, len(images), batch_size):
            pixels = torch.from_numpy(np.ascontiguousarray(images[start : start + batch_size])).permute(0, 3, 1, 2)
            pixels = (pixels.to(self.device).float() / 127.5 - 1).to(vae.dtype)
            latents.append(self.family.scaled(vae.encode(pixels).latent_dist.mode().float()))
        return torch.cat(latents)

    def decode(self, latents: Tensor) -> Tensor:
        """Scaled latents (B, C, h, w) to images (B, 3, H, W) fp32 in 0..1, clipped there; differentiable."""
        vae = self.family.autoencoder
        pixels = vae.decode(self.family.unscaled(latents.to(self.device, vae.dtype)), return_dict=False)[0]
        return (pixels.float() / 2 + 0.5).clamp(0, 1)

    def predicted_x0(self, x: Tensor, t: Tensor, prediction: Tensor) -> Tensor:
        """The clean latents (B, C, h, w) that a prediction at x (B, C, h, w), t (B,) implies; differentiable."""
        return self.family.schedule.predicted_x0(x, t, prediction)

    def add_noise(self, latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """Latents (B, C, h, w) brought to timesteps t (B,) with noise of the same shape."""
        return self.family.schedule.add_noise(latents, noise, t)

    def target(self, latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """What a perfect network predicts there."""
        return self.family.schedule.target(latents, noise, t)


def resolve(device: str = "auto", precision: str = "auto") -> tuple[torch.device, str]:
    """The device and the precision that `auto` means on this machine. UserError for one that is not there."""
    place = _device(device)
    if precision == "auto":
        precision = "bf16" if place.type == "cuda" else "fp32"
    return place, choose(precision, PRECISIONS, "precision")


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    kind = choose(str(name).split(":")[0], ("auto", *available), "device")
    if not available[kind]:
        raise UserError(f"this machine has no usable {kind} device: use device=auto or device=cpu")
    return torch.device(distributed.local_device(name))
