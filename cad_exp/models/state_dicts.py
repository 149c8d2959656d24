"""Published weights, laid over a loaded denoiser: `model.weights=FILE`. Nothing is ever unpickled.

What the public code of erasing methods saves, and so what is read here (facts of their repositories, November 2026):
  ESD          `esd-*.safetensors`: only the trained modules, diffusers names; older `diffusers-*-UNET.pt`: the whole
               UNet; `esd-*.pt`: {"unet.down_blocks...to_k": {"weight": tensor}}; `compvis-*.pt`: CompVis (LDM) names
  UCE          `*.safetensors`: only `...attn2.to_k.weight`, `to_v.weight` (FLUX: `context_embedder.weight`, ...);
               older `erased-*.pt`: the whole UNet
  RECE         `*.pt`: the whole UNet, also under "state_dict"
  ConceptPrune `skill_ratio_*.pt`: the whole UNet; its `timestep_*_layer_*.pkl`, pickled scipy masks, are refused
A file that holds only some of the weights is laid over the others as they are.
"""

import warnings
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from cad_exp.models.sources import by_torch, weights_file
from cad_exp.utils.errors import UserError

WRAPPERS = ("state_dict", "model_state_dict", "model", "module", "unet", "transformer", "denoiser")
OTHERS = ("text_encoder", "text_encoder_2", "text_encoder_3", "vae")
# Parts of a whole CompVis checkpoint beside the UNet. They are the base model's own, as these methods train the UNet.
BESIDE = ("first_stage_model.", "cond_stage_model.", "conditioner.", "model_ema.")
LDM = "model.diffusion_model."
LDM_PARTS = ("input_blocks.", "middle_block.", "output_blocks.", "time_embed.", "label_emb.", "out.")
FILLER = "__filler__"


def overlay(denoiser: nn.Module, path: str | Path) -> int:
    """Put the file's weights in place of the denoiser's; return how many. UserError, nothing changed, if unfit."""
    tensors, own = overlay_tensors(denoiser, path), denoiser.state_dict()
    with torch.no_grad():
        for name, tensor in tensors.items():
            own[name].copy_(tensor)  # a state dict's tensors share memory with the module's
    return len(tensors)


def overlay_tensors(denoiser: nn.Module, path: str | Path) -> dict[str, Tensor]:
    """Return the file's weights by the denoiser's parameter names, on the CPU, in each parameter's type.

    Raises UserError if the file is missing, is no state dict, is a LoRA, holds an unknown name, another shape or a
    number that is not finite (also after the change of type), or changes another network than the denoiser.
    """
    file, own = weights_file(path), denoiser.state_dict()
    given = _named(_flat(read(file)), file, denoiser)
    unknown = [name for name in given if name not in own]
    if not given or len(unknown) == len(given):
        like = f" (it has names like '{unknown[0]}', the model like '{next(iter(own))}')" if unknown else ""
        raise UserError(f"no weight in '{file}' fits this denoiser{like}: it was made for another model or network")
    if unknown:
        close = get_close_matches(unknown[0], own, n=1)
        hint = f"did you mean '{close[0]}'? " if close else ""
        raise UserError(f"'{file}' has {len(unknown)} unknown names, the first is '{unknown[0]}': {hint}It is not used")
    return {name: _fitting(name, tensor, own[name], file) for name, tensor in given.items()}


def read(file: Path) -> Mapping[str, Any]:
    """Read a safetensors file or a torch file of tensors. UserError for anything else."""
    try:
        content = _opened(file)
    except SafetensorError as error:
        raise UserError(f"'{file}' is damaged ({error}): download it again") from error
    except Exception as error:  # torch tells a refused pickle and a damaged file in many ways
        raise UserError(
            f"'{file}' is damaged or a pickle with more than tensors, which could run code and is not opened: "
            "give the safetensors file, or the state dict of the erased UNet (of ConceptPrune its skill_ratio_*.pt)"
        ) from error
    if content is None:
        raise UserError(f"'{file}' is no safetensors or torch file: download it again")
    if not isinstance(content, Mapping):
        raise UserError(f"'{file}' holds no weights by their names: save model.unet.state_dict()")
    return content


def _opened(file: Path) -> Any:
    """Return what the file holds, by its content and not by its suffix; None for another kind of file."""
    with open(file, "rb") as stream:
        start = stream.read(9)
        stream.seek(0)
        if start[8:] == b"{":  # a safetensors file is the length of its header (8 bytes), then JSON
            return load_file(str(file))
        if not by_torch(file):
            return None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of unusual pickle protocols
            return torch.load(stream, map_location="cpu", weights_only=True)


def _flat(content: Mapping[str, Any], prefix: str = "") -> dict[str, Tensor]:
    """Return tensors by dotted name; numbers, texts and lists (steps, settings) are no weights."""
    flat: dict[str, Tensor] = {}
    for key, value in content.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        elif isinstance(value, Tensor):
            flat[f"{prefix}{key}"] = value
    return flat


def _named(flat: dict[str, Tensor], file: Path, denoiser: nn.Module) -> dict[str, Tensor]:
    """Return weights of the denoiser by diffusers' names."""
    if any("lora" in name.lower() for name in flat):
        raise UserError(f"'{file}' is a LoRA: give it as model.lora=FILE")
    own = denoiser.state_dict()
    wrapper: str | None = ""
    while wrapper is not None:  # "state_dict.", "unet.", "module.model.": layers around the names, one at a time
        flat = {name: tensor for name, tensor in flat.items() if not name.startswith(BESIDE)}
        if any(name in own or name.startswith((LDM, *LDM_PARTS)) for name in flat):
            break
        wrapper = next((w for w in WRAPPERS if any(name.startswith(f"{w}.") for name in flat)), None)
        if wrapper is not None:
            flat = _unwrapped(flat, wrapper, file)
    if any(name.startswith(LDM_PARTS) for name in flat):
        flat = {LDM + name: tensor for name, tensor in flat.items()}
    return _from_ldm(flat, denoiser) if any(name.startswith(LDM) for name in flat) else flat


def _unwrapped(flat: dict[str, Tensor], wrapper: str, file: Path) -> dict[str, Tensor]:
    beside = [part for part in OTHERS if any(name.startswith(f"{part}.") for name in flat)]
    if beside:
        raise UserError(
            f"'{file}' also holds weights of the {beside[0]}, and model.weights changes the denoiser only: "
            "save the whole pipeline with diffusers, and use model=local model.path=FOLDER"
        )
    return {name.removeprefix(f"{wrapper}."): x for name, x in flat.items() if name.startswith(f"{wrapper}.")}


def _from_ldm(flat: dict[str, Tensor], denoiser: nn.Module) -> dict[str, Tensor]:
    """Turn CompVis names into diffusers' names, by its own converter. A name that it drops stays, to be refused."""
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

    convert: Callable[..., dict[str, Any]] = convert_ldm_unet_checkpoint
    own: Any = denoiser.config
    config = dict(own)
    if not any(name.startswith(f"{LDM}label_emb.") for name in flat):
        config |= {"addition_embed_type": None, "class_embed_type": None}  # a partial file need not have them
    # The converter counts the blocks that it sees, so that a partial file would shift them: every block gets a name.
    blocks = len(config["block_out_channels"]) * (config["layers_per_block"] + 1)
    numbers = {"input_blocks": blocks, "middle_block": 3, "output_blocks": blocks}
    fillers = {f"{LDM}{part}.{i}.{FILLER}": None for part, number in numbers.items() for i in range(number)}
    found = convert(flat | fillers, config)
    found = {name: x for name, x in found.items() if x is not None and FILLER not in name}
    reached = {id(tensor) for tensor in found.values()}
    return found | {name: x for name, x in flat.items() if name.startswith(LDM) and id(x) not in reached}


def _fitting(name: str, tensor: Tensor, own: Tensor, file: Path) -> Tensor:
    if tensor.shape != own.shape:
        raise UserError(
            f"'{name}' is {tuple(tensor.shape)} in '{file}' and {tuple(own.shape)} in the model: "
            "the file was made for another model"
        )
    given, tensor = tensor, tensor.to(own.dtype)
    if not torch.isfinite(tensor).all():
        kind = str(own.dtype).removeprefix("torch.")
        overflows = torch.isfinite(given).all()
        advice = "use runtime.precision=fp32, or another file" if overflows else "use another file"
        raise UserError(f"'{name}' in '{file}' is not finite as {kind}: {advice}")
    return tensor
