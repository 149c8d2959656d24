"""A thin wrapper around a diffusers text-to-image pipeline; what differs between models: cad_exp.models.families."""

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
import torch
from diffusers import DiffusionPipeline
from PIL import Image
from torch import Tensor, nn

from cad_exp.models import single_file
from cad_exp.models.fingerprint import fingerprint
from cad_exp.models.latent_model import LatentModel
from cad_exp.models.model_folder import left_out, variant
from cad_exp.models.sources import locate, locate_config
from cad_exp.utils import distributed
from cad_exp.utils.errors import UserError, choose, reason_of
from cad_exp.utils.finite import Watch

Progress = Callable[[int, int], Any]
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class DiffusionModel(LatentModel):
    """Wrap a text-to-image pipeline of any family: text encoders, denoiser, VAE, scheduler.

    What it predicts for latents is a LatentModel's; here it is loaded, and makes and reads images. `steps`, `guidance`
    and `resolution` (pixels) are the defaults for `generate`; a guidance of 0 means a guidance-distilled model. Raises
    UserError for a pipeline of no known family.
    """

    def __init__(
        self,
        pipe: DiffusionPipeline,
        name: str = "model",
        steps: int = 50,
        guidance: float = 7.5,
        resolution: int | None = None,
    ):
        super().__init__(pipe, name, guidance, resolution)
        self.steps = int(steps)

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
        config: str | None = None,
    ) -> "DiffusionModel":
        """Load a diffusers folder, a single safetensors file, a hub id, or an embedded model (`mini`, `mini_dit`).

        The safety checker is left out.

        Args:
            path: of the model.
            revision: commit or branch on the hub; None takes the newest one.
            device: auto, cpu, cuda, cuda:1, mps.
            precision: auto (CUDA bf16, else fp32), fp32, bf16, fp16.
            steps: sampling steps of `generate`, at least 1.
            guidance: scale of classifier-free guidance; 0 for a guidance-distilled model.
            name: for results and messages; None takes the path.
            resolution: side of images in pixels; None takes the model's own.
            config: the folder or hub id that describes a single file.

        Raises:
            UserError: the model cannot be had, with what to do.

        Examples:
            >>> model = cad_exp.DiffusionModel.load("mini", device="cpu", steps=2)
            >>> model.generate(["a photo of a church"], seeds=[0]).shape
            (1, 64, 64, 3)
        """
        place, precision = resolve(device, precision)
        dtype = PRECISIONS[precision]
        folder = locate(path)
        source, local = str(folder or path), folder is not None
        single = local and Path(source).is_file()
        if single:
            locate_config(config, Path(source))
        try:
            if single:
                pipe = single_file.load(Path(source), config, revision, dtype)
            else:
                pipe = cls._load(source, folder, revision, dtype)
        except Exception as error:  # hub, network and file errors share no base class
            advice = (
                "check that it is complete, and of the kind of model that model.config describes"
                if single
                else "check that it is a complete diffusers folder"
                if local
                else "check the id and the network, or download it elsewhere and use model=local model.path=FOLDER"
            )
            raise UserError(f"cannot load the model '{path}': {advice} ({reason_of(error, 200)})") from error
        return cls(pipe.to(place), name or str(path), steps, guidance, resolution)

    @staticmethod
    def _load(source: str, folder: Path | None, revision: str | None, dtype: torch.dtype) -> DiffusionPipeline:
        local = folder is not None
        with warnings.catch_warnings():
            # torch_dtype is renamed in new diffusers, and the only name that the older supported ones know.
            warnings.simplefilter("ignore", FutureWarning)
            warnings.filterwarnings("ignore", message=".*local_dir_use_symlinks")  # diffusers' own, of load_config
            warnings.filterwarnings("ignore", message="Detected pickle protocol")  # it is refused, or read safely
            return DiffusionPipeline.from_pretrained(
                source,
                revision=revision,
                torch_dtype=dtype,
                variant=variant(folder) if folder is not None else None,
                local_files_only=local,
                **left_out(DiffusionPipeline.load_config(source, revision=revision, local_files_only=local)),
            )

    @property
    def networks(self) -> dict[str, nn.Module]:
        """Every network of the pipeline by its name in it."""
        return {name: part for name, part in self.pipe.components.items() if isinstance(part, nn.Module)}

    def fingerprint(self) -> str:
        """Return the first 16 hex digits of the SHA-256 of the denoiser's weights (names, types and bytes)."""
        return fingerprint(self.denoiser)

    @overload
    def generate(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        steps: int | None = None,
        guidance: float | None = None,
        batch_size: int = 64,
        progress: Progress | None = None,
        size: tuple[int, int] | None = None,
        *,
        output_type: Literal["np"] = "np",
    ) -> np.ndarray: ...

    @overload
    def generate(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        steps: int | None = None,
        guidance: float | None = None,
        batch_size: int = 64,
        progress: Progress | None = None,
        size: tuple[int, int] | None = None,
        *,
        output_type: Literal["pil"],
    ) -> list[Image.Image]: ...

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
        *,
        output_type: Literal["np", "pil"] = "np",
    ) -> np.ndarray | list[Image.Image]:
        """Make images, one per (prompt, seed), by the pipeline's own call: an array (N, H, W, 3) uint8, or PIL images.

        Args:
            prompts: one for each image; one text is one prompt.
            seeds: one for each image.
            steps: sampling steps; None takes the model's.
            guidance: scale of classifier-free guidance; None takes the model's.
            batch_size: images at once; they do not depend on it.
            progress: progress(done, total) counts steps times images.
            size: (height, width) in pixels; None takes the model's.
            output_type: `np` or `pil`, as diffusers has it.

        Raises:
            UserError: prompts and seeds differ in number, or a latent or pixel is not finite; it names prompt and seed.
        """
        prompts = [prompts] if isinstance(prompts, str) else list(prompts)
        seeds = [int(seed) for seed in seeds]
        choose(output_type, ("np", "pil"), "output_type")
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
        whole = np.concatenate(images) if images else np.zeros((0, height, width, 3), np.uint8)
        return whole if output_type == "np" else [Image.fromarray(image) for image in whole]

    @torch.no_grad()
    def encode_images(self, images: np.ndarray, batch_size: int = 16) -> Tensor:
        """Turn images (N, H, W, 3) uint8 into scaled latents (N, C, h, w) fp32.

        Pixels are scaled to [-1, 1], and the posterior's mode is taken.
        """
        vae, latents = self.family.autoencoder, []
        for start in range(0, len(images), batch_size):
            pixels = torch.from_numpy(np.ascontiguousarray(images[start : start + batch_size])).permute(0, 3, 1, 2)
            pixels = (pixels.to(self.device).float() / 127.5 - 1).to(vae.dtype)
            latents.append(self.family.scaled(vae.encode(pixels).latent_dist.mode().float()))
        return torch.cat(latents)

    def decode(self, latents: Tensor) -> Tensor:
        """Turn scaled latents (B, C, h, w) into images (B, 3, H, W) fp32 in 0..1, clipped there; differentiable."""
        vae = self.family.autoencoder
        pixels: Tensor = vae.decode(self.family.unscaled(latents.to(self.device, vae.dtype)), return_dict=False)[0]
        return (pixels.float() / 2 + 0.5).clamp(0, 1)


def resolve(device: str = "auto", precision: str = "auto") -> tuple[torch.device, str]:
    """Return the device and the precision that `auto` means on this machine. UserError for one that is not there."""
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
