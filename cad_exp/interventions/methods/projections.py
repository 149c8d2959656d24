"""Keys and values of cross-attention: the linear maps of the text that the closed forms of UCE and RECE edit.

They are found by class and shape, and the text is taken as it arrives there: whatever a model does to the text
encoder's states before its cross-attention (PixArt projects them) needs no knowledge here.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

from cad_exp.interventions.edit import Edit
from cad_exp.interventions.networks import Networks, weight_of
from cad_exp.models.pipeline import DiffusionModel
from cad_exp.utils.errors import UserError


def cross_attentions(denoiser: nn.Module) -> dict[str, Attention]:
    """Return every attention of the image to the text, by name.

    UserError for joint attention (SD3, FLUX), whose keys and values serve text and image at once.
    """
    found = {name: m for name, m in denoiser.named_modules() if isinstance(m, Attention) and m.is_cross_attention}
    if not found:
        raise UserError(
            "this model has no cross-attention (text and image share one attention): "
            "this edit is for Stable Diffusion 1, 2, XL and PixArt; use edit=erase, or edit=esd edit.method=esd-u"
        )
    return found


def projections(denoiser: nn.Module) -> list[str]:
    """Return the names of the Linears that make keys and values of the text, all of one width. UserError for none."""
    names = [f"{name}.{part}" for name in cross_attentions(denoiser) for part in ("to_k", "to_v")]
    modules = [denoiser.get_submodule(name) for name in names]
    if not all(isinstance(m, nn.Linear) for m in modules) or len({m.in_features for m in modules}) > 1:
        raise UserError("the cross-attention's keys and values are not linear maps of one text: use edit=erase")
    return names


@torch.no_grad()
def texts(model: DiffusionModel, prompts: Sequence[str]) -> list[Tensor]:
    """Return, for each prompt, the vectors (L, D) fp64 that every key and value projection sees, on the CPU.

    One pass each. UserError if the layers see the text differently.
    """
    names = [name for name in projections(model.denoiser) if name.endswith("to_k")]
    found, x = [], model.noise_like([0])
    for prompt in prompts:
        seen: list[Tensor] = []
        with ExitStack() as hooks:
            for name in names:
                module = model.denoiser.get_submodule(name)
                hook = module.register_forward_pre_hook(lambda _, args, seen=seen: seen.append(_row(args[0])))
                hooks.callback(hook.remove)
            model.predict(x, torch.zeros(1, dtype=torch.long), model.encode([prompt]))
        if not all(torch.equal(seen[0], other) for other in seen):
            raise UserError("the layers of this model see the text differently: a closed form is not for it")
        found.append(seen[0])
    return found


def _row(states: Tensor) -> Tensor:
    return states[0].double().cpu()


def last_word(model: DiffusionModel, prompt: str) -> int:
    """Return the position of the last word's last token; of an empty prompt that of the start token, 0.

    The position before the end token, which CLIP's and T5's tokenizers both write.
    """
    return max(0, len(model.pipe.tokenizer(prompt, truncation=True)["input_ids"]) - 2)


def closed_form(pairs: Sequence[tuple[Tensor, Tensor, float]], lamb: float) -> Tensor:
    """Return the matrix T (D, D) fp64 of Unified Concept Editing: the new weight of every projection is W T.

    pairs: (c (n, D), target (n, D), scale); the edited W takes each c to where the old one takes its target; c with
    itself as target is preserved. UCE (arXiv 2308.14761, eq. 7), with v* = W c*:
    W_new = (lamb W + sum scale v* c^T) (lamb I + sum scale c c^T)^-1, so that W can be drawn out to the left.
    UserError unless lamb > 0.
    """
    if not lamb > 0:
        raise UserError(f"edit.lamb={lamb} is out of range: use a number above 0")
    width = pairs[0][0].shape[1]
    gram = lamb * torch.eye(width, dtype=torch.float64)
    wanted = gram.clone()
    for context, target, scale in pairs:
        gram += scale * context.T @ context
        wanted += scale * target.T @ context
    solution: Tensor = torch.linalg.solve(gram, wanted.T)
    return solution.T


def replace(model: DiffusionModel, transform: Tensor, meta: dict[str, Any]) -> Edit:
    """Make the edit that puts W T in place of every key and value projection W.

    Products are in fp64; the result has the model's precision.
    """
    new, networks = {}, Networks.of(model)
    for name in projections(model.denoiser):
        weight = weight_of(networks, name)
        new[f"{name}.weight"] = (weight.double().cpu() @ transform).to(weight.dtype)
    return Edit({}, meta=meta, replaced=new)
