"""A thin wrapper around a diffusers text-to-image pipeline: the only place that knows how a model is called."""

import hashlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DDIMScheduler, DiffusionPipeline
from torch import Tensor, nn

from cad_exp import parallel
from cad_exp.errors import UserError, choose
from cad_exp.model_files import locate

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
    """A Stable Diffusion style pipeline (text encoder, UNet, VAE, scheduler) with eps or v prediction.

    `steps`, `guidance` and `resolution` (pixels) are the defaults for `generate`.
    """

    def __init__(
        self,
        pipe: DiffusionPipeline,
        name: str = "model",
        steps: int = 50,
        guidance: float = 7.5,
        resolution: int | None = None,
    ):
        if not isinstance(getattr(pipe, "unet", None), nn.Module) or hasattr(pipe, "text_encoder_2"):
            raise UserError(
                f"'{name}' is a {type(pipe).__name__}, not supported yet: give a Stable Diffusion 1 or 2 model"
            )
        self.pipe, self.name, self.steps, self.guidance = pipe, name, int(steps), float(guidance)
        pipe.set_progress_bar_config(disable=True)
        for module in (pipe.unet, pipe.vae, pipe.text_encoder):
            module.eval().requires_grad_(False)  # only gates are ever differentiated
        self.prediction_type = pipe.scheduler.config.get("prediction_type", "epsilon")
        if self.prediction_type not in ("epsilon", "v_prediction"):
            raise UserError(f"'{name}' predicts '{self.prediction_type}': only epsilon and v_prediction are supported")
        size = pipe.unet.config.sample_size
        self.resolution = resolution or (size if isinstance(size, int) else size[0]) * pipe.vae_scale_factor
        # Latents are never clipped; a scheduler whose config lacks the entry would inherit DDIM's default, True.
        config = {**pipe.scheduler.config, "clip_sample": pipe.scheduler.config.get("clip_sample", False)}
        self._ddim_config = config
        self._noiser = self.ddim()

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
        """Load a diffusers folder, a hub id, or `mini` (the embedded model); the safety checker is left out.

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
                pipe = DiffusionPipeline.from_pretrained(
                    source,
                    revision=revision,
                    torch_dtype=dtype,
                    safety_checker=None,
                    requires_safety_checker=False,
                    local_files_only=local,
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
        return self.pipe.unet

    @property
    def device(self) -> torch.device:
        return next(self.denoiser.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.denoiser.parameters()).dtype

    def fingerprint(self) -> str:
        """First 16 hex digits of the SHA-256 of the denoiser's weights (names, types and bytes)."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.denoiser.state_dict().items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()[:16]

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> Tensor:
        """Text states (B, L, D) of the prompts, on the model's device."""
        return self.pipe.encode_prompt(list(prompts), self.device, 1, False)[0]

    def predict(self, x: Tensor, t: Tensor, states: Tensor, weights: dict[str, Tensor] | None = None) -> Tensor:
        """The network's raw output (eps or v), fp32, for latents x (B, C, h, w), timesteps t (B,) and states (B, L, D).

        `weights` replaces parameters by name for this call only. Differentiable in everything.
        """
        args = (x.to(self.device, self.dtype), t.to(self.device))
        call = {"encoder_hidden_states": states.to(self.device, self.dtype), "return_dict": False}
        if weights:
            # No parameter of a denoiser has two names; looking for such ones takes longer than a small forward pass.
            return torch.func.functional_call(self.denoiser, weights, args, call, tie_weights=False)[0].float()
        return self.denoiser(*args, **call)[0].float()

    def ddim(self, steps: int | None = None) -> DDIMScheduler:
        """A deterministic DDIM sampler with the noise schedule of the pipeline's own scheduler."""
        scheduler = DDIMScheduler.from_config(self._ddim_config)
        if steps is not None:
            if not 1 <= steps <= scheduler.config.num_train_timesteps:
                raise UserError(f"steps={steps} is out of range: use 1 to {scheduler.config.num_train_timesteps}")
            scheduler.set_timesteps(steps, device=self.device)
        return scheduler

    def noise_like(self, seeds: Sequence[int]) -> Tensor:
        """Standard normal latents (B, C, h, w) fp32, each from its own seed: the same in any batch, on any device."""
        size = self.resolution // self.pipe.vae_scale_factor
        shape = (self.denoiser.config.in_channels, size, size)
        noise = [torch.randn(shape, generator=torch.Generator().manual_seed(int(seed))) for seed in seeds]
        return torch.stack(noise).to(self.device)

    @torch.no_grad()
    def trajectory(
        self, prompt: str, base: str, seeds: Sequence[int], steps: int = 50, guidance: float = 3.0
    ) -> Iterator[Step]:
        """Walk seeded trajectories by DDIM with classifier-free guidance, `base` being the guidance's negative branch.

        Yields `steps` Steps; each x is given with the timestep at which the network sees it, before the update.
        """
        scheduler = self.ddim(steps)
        states = self.encode([prompt, base]).repeat_interleave(len(seeds), 0)
        x = self.noise_like(seeds) * scheduler.init_noise_sigma
        for t in scheduler.timesteps:
            cond, base_prediction = self.predict(torch.cat([x, x]), t.expand(2 * len(x)), states).chunk(2)
            yield Step(int(t), x, cond, base_prediction)
            x = scheduler.step(base_prediction + guidance * (cond - base_prediction), t, x).prev_sample

    @torch.no_grad()
    def generate(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        steps: int | None = None,
        guidance: float | None = None,
        batch_size: int = 64,
        progress: Progress | None = None,
    ) -> np.ndarray:
        """Images (N, H, W, 3) uint8, one per (prompt, seed), by the pipeline's own call; independent of batch_size.

        `progress(done, total)` counts denoising steps times images.
        """
        prompts, seeds = list(prompts), [int(seed) for seed in seeds]
        if len(prompts) != len(seeds):
            raise UserError(f"{len(prompts)} prompts but {len(seeds)} seeds: give one seed per prompt")
        steps, guidance = steps or self.steps, self.guidance if guidance is None else guidance
        images = []
        for start in range(0, len(prompts), batch_size):
            batch = seeds[start : start + batch_size]

            def report(pipe: Any, step: int, t: Any, kwargs: dict, start: int = start, size: int = len(batch)) -> dict:
                if progress:
                    progress(start * steps + min(step + 1, steps) * size, len(prompts) * steps)
                return kwargs

            result = self.pipe(
                prompts[start : start + batch_size],
                height=self.resolution,
                width=self.resolution,
                num_inference_steps=steps,
                guidance_scale=guidance,
                latents=self.noise_like(batch).to(self.dtype),
                generator=[torch.Generator().manual_seed(seed) for seed in batch],  # for samplers that add noise
                output_type="np",
                callback_on_step_end=report,
            )
            images.append((result.images * 255).round().astype(np.uint8))
        return np.concatenate(images) if images else np.zeros((0, self.resolution, self.resolution, 3), np.uint8)

    @torch.no_grad()
    def encode_images(self, images: np.ndarray, batch_size: int = 16) -> Tensor:
        """Images (N, H, W, 3) uint8 to scaled latents (N, C, h, w) fp32: pixels in [-1, 1], the posterior's mode."""
        vae, latents = self.pipe.vae, []
        for start in range(0, len(images), batch_size):
            pixels = torch.from_numpy(np.ascontiguousarray(images[start : start + batch_size])).permute(0, 3, 1, 2)
            pixels = (pixels.to(self.device).float() / 127.5 - 1).to(vae.dtype)
            latents.append(vae.encode(pixels).latent_dist.mode().float() * vae.config.scaling_factor)
        return torch.cat(latents)

    def decode(self, latents: Tensor) -> Tensor:
        """Scaled latents (B, C, h, w) to images (B, 3, H, W) fp32 in 0..1, clipped there; differentiable."""
        vae = self.pipe.vae
        pixels = vae.decode(latents.to(self.device, vae.dtype) / vae.config.scaling_factor, return_dict=False)[0]
        return (pixels.float() / 2 + 0.5).clamp(0, 1)

    def predicted_x0(self, x: Tensor, t: Tensor, prediction: Tensor) -> Tensor:
        """The clean latents (B, C, h, w) that a prediction at x (B, C, h, w), t (B,) implies; differentiable.

        eps: (x - sqrt(1 - abar_t) eps) / sqrt(abar_t) (DDIM, arXiv 2010.02502, eq. 12);
        v: sqrt(abar_t) x - sqrt(1 - abar_t) v (Salimans and Ho, arXiv 2202.00512, appendix D).
        """
        kept = self._noiser.alphas_cumprod.to(x.device)[t.to(x.device)].view(-1, 1, 1, 1)
        signal, noise = kept.sqrt(), (1 - kept).sqrt()
        if self.prediction_type == "epsilon":
            return (x - noise * prediction) / signal
        return signal * x - noise * prediction

    def add_noise(self, latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """Latents (B, C, h, w) diffused to timesteps t (B,): sqrt(abar_t) x0 + sqrt(1 - abar_t) noise."""
        return self._noiser.add_noise(latents, noise, t)

    def target(self, latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """What a perfect network predicts there: the noise, or v = sqrt(abar_t) noise - sqrt(1 - abar_t) x0."""
        return noise if self.prediction_type == "epsilon" else self._noiser.get_velocity(latents, noise, t)


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
    return torch.device(parallel.local_device(name))
