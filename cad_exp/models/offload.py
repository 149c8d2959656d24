"""Offloading (by accelerate): text encoders and VAE wait in the machine's memory while the denoiser works on the GPU.

model: each comes to the GPU whole for its call; a text encoder leaves at once, the VAE when a text encoder comes next.
sequential: text encoders compute layer by layer, so that even a T5-XXL takes no more than its largest layer.
The denoiser stays on the GPU: its weights are gated, differentiated and edited there. All compute where they did
before, so no number changes.
"""

from typing import Any

import torch
from torch import nn

from cad_exp.models.pipeline import DiffusionModel
from cad_exp.utils.errors import UserError, choose

MODES = ("none", "model", "sequential")


def check(mode: str, device: torch.device) -> None:
    """Raise UserError for an unknown mode, or one that this device cannot use, before anything is loaded."""
    if choose(mode, MODES, "runtime.offload") != "none" and device.type != "cuda":
        raise UserError(f"runtime.offload={mode} frees GPU memory and needs a CUDA device, not {device.type}: use none")


def place(model: DiffusionModel, device: torch.device, mode: str) -> None:
    """Move the denoiser to the device, everything else as `mode` says; `model` was loaded on the CPU."""
    import accelerate

    model.denoiser.to(device)
    vae = getattr(model.pipe, "vae", None)
    last = accelerate.cpu_offload_with_hook(vae, device)[1] if vae is not None else None
    for encoder in text_encoders(model.pipe):
        if mode == "sequential":
            accelerate.cpu_offload(encoder, device, offload_buffers=True)
            continue
        _, hook = accelerate.cpu_offload_with_hook(encoder, device, prev_module_hook=last)
        encoder.register_forward_hook(lambda *_, hook=hook: None if torch.is_grad_enabled() else hook.offload())


def text_encoders(pipe: Any) -> list[nn.Module]:
    """Return the text encoders of a diffusers pipeline, in their order."""
    names = sorted(name for name in pipe.components if name.startswith("text_encoder"))
    return [pipe.components[name] for name in names if isinstance(pipe.components[name], nn.Module)]
