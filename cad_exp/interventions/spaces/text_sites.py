"""Components of the text encoders: where they live. Only CLIP encoders have some; T5 is left as it is."""

from typing import Any

from torch import nn
from transformers.models.clip.modeling_clip import CLIPMLP, CLIPAttention

from cad_exp.interventions.spaces.sites import TEXT_ATTENTION, TEXT_FF, Site
from cad_exp.utils.errors import UserError


def text_sites(pipe: Any) -> list[Site]:
    """Return every output projection of the pipeline's CLIP text encoders, in forward order, found by class.

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
