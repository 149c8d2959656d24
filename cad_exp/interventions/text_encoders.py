"""Components of the text encoders: where they live, and how modules of denoiser and encoders are found by one name.

A text encoder's module is called "text_encoder:layers.3.mlp.fc2", the part of the pipeline before the colon. Only CLIP
encoders have components; T5 is left as it is.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from transformers.models.clip.modeling_clip import CLIPMLP, CLIPAttention

from cad_exp.interventions.spaces import TEXT_ATTENTION, TEXT_FF, Site
from cad_exp.utils.errors import UserError


def is_text(name: str) -> bool:
    """Whether a module's name is one of a text encoder."""
    return ":" in name


class Networks:
    """The modules of a pipeline by name: the denoiser's as they are called there, a text encoder's after its part."""

    def __init__(self, pipe: Any, denoiser: nn.Module):
        self.pipe, self.denoiser = pipe, denoiser

    def get_submodule(self, name: str) -> nn.Module:
        """AttributeError if there is none, as nn.Module has it."""
        part, _, inner = name.rpartition(":")
        return (getattr(self.pipe, part) if part else self.denoiser).get_submodule(inner)

    def get_parameter(self, name: str) -> nn.Parameter:
        """A parameter of the denoiser."""
        return self.denoiser.get_parameter(name)


def text_sites(pipe: Any) -> list[Site]:
    """Every output projection of the pipeline's CLIP text encoders, in forward order, by class.

    Heads are columns of `out_proj`, neurons those of `fc2`. Raises UserError if no encoder is a CLIP.
    """
    sites = []
    for part in ("text_encoder", "text_encoder_2"):
        encoder = getattr(pipe, part, None)
        for name, module in encoder.named_modules() if isinstance(encoder, nn.Module) else ():
            if isinstance(module, CLIPAttention):
                place, kind, heads, linear = "out_proj", TEXT_ATTENTION, module.num_heads, module.out_proj
            elif isinstance(module, CLIPMLP):
                place, kind, heads, linear = "fc2", TEXT_FF, 0, module.fc2
            else:
                continue
            layer = name.rpartition(".")[0]
            block = f"{part}.{layer[layer.find('layers') :]}"  # dotted paths differ between versions of transformers
            shape = (linear.out_features, linear.in_features)
            sites.append(Site(f"{part}:{name}.{place}", block, kind, shape, heads))
    if not sites:
        raise UserError("this model has no CLIP text encoder, so it has no components of such a kind")
    return sites


@contextmanager
def other_weights(networks: Networks, weights: dict[str, Tensor]) -> Iterator[None]:
    """Meanwhile, Linears of the text encoders compute with other weights (out, in); differentiable in them."""
    with ExitStack() as undo:
        for name, weight in weights.items():
            module = networks.get_submodule(name)
            module.forward = lambda x, weight=weight, module=module: F.linear(x, weight.to(x.dtype), module.bias)
            undo.callback(vars(module).pop, "forward", None)
        yield
