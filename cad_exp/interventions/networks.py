"""One name for every module of a pipeline: the denoiser's as it has them, a text encoder's after its part.

A text encoder's module is called "text_encoder:layers.3.mlp.fc2", the part of the pipeline before the colon.
"""

from typing import Any

from torch import Tensor, nn

from cad_exp.utils.errors import UserError


def is_text(name: str) -> bool:
    """Return whether a module's name is one of a text encoder."""
    return ":" in name


class Networks:
    """The modules of a pipeline by name."""

    def __init__(self, pipe: Any, denoiser: nn.Module):
        self.pipe, self.denoiser = pipe, denoiser

    @classmethod
    def of(cls, target: Any) -> "Networks":
        """Return those of a DiffusionModel, a plain diffusers pipeline, or a lone denoiser. UserError for others."""
        return cls(getattr(target, "pipe", target), _denoiser(target))

    def get_submodule(self, name: str) -> nn.Module:
        """Return the module of this name. AttributeError if there is none, as nn.Module has it."""
        part, _, inner = name.rpartition(":")
        network: nn.Module = getattr(self.pipe, part) if part else self.denoiser
        return network.get_submodule(inner)

    def get_parameter(self, name: str) -> nn.Parameter:
        """Return a parameter of the denoiser. AttributeError if there is none."""
        return self.denoiser.get_parameter(name)


def weight_of(networks: Networks, name: str) -> Tensor:
    """Return the weight (out, in) of a module, without gradients."""
    module: Any = networks.get_submodule(name)
    weight: Tensor = module.weight.detach()
    return weight


def _denoiser(target: Any) -> nn.Module:
    if isinstance(target, nn.Module):
        return target
    for holder in (target, getattr(target, "pipe", target)):
        for name in ("denoiser", "unet", "transformer"):
            found = getattr(holder, name, None)
            if isinstance(found, nn.Module):
                return found
    raise UserError(
        "there is no denoiser to edit in what was given: give a diffusers pipeline, its UNet or its transformer"
    )
