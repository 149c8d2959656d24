"""Networks without data, on torch's meta device: built from a config, counted, and run to see what memory they need."""

import json
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from cad_exp.models.model_folder import not_square, read_config, read_index
from cad_exp.models.sources import MODELS, locate, locate_config
from cad_exp.utils.errors import UserError, choose

FOLDER = Path(__file__).parents[1] / "models" / "denoisers"
SIZES = {"fp32": 4, "bf16": 2, "fp16": 2}
TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
Facts = dict[str, Any]


def names() -> list[str]:
    """Return the models whose true configs are at hand."""
    return sorted(file.stem for file in FOLDER.glob("*.json"))


def describe(name: str, path: str | None = None, config: str | None = None) -> Facts:
    """Return the configs of a model's networks: from this package; of `local` and shipped ones from their folder.

    config: the folder that describes a single file at `path`.
    """
    if name == "local" or name in MODELS:
        folder = locate(name if name in MODELS else path or "")
        if folder is not None and folder.is_file():
            folder = locate_config(config, folder)
        if folder is None:
            raise UserError("model=local needs model.path=FOLDER, a diffusers folder on this machine")
        return _of_folder(folder)
    facts: Facts = json.loads((FOLDER / f"{choose(name, [*names(), 'local', *MODELS], 'model')}.json").read_text())
    return describe(facts["like"]) | facts if "like" in facts else facts


def _of_folder(folder: Path) -> Facts:
    index = read_index(folder)
    found = {}
    for part in index:
        file = folder / part / "config.json"
        if not file.is_file():
            continue
        config = read_config(file)
        name = next(iter(config.get("architectures") or [config.get("_class_name")]))
        if not isinstance(name, str):
            raise UserError(f"'{file}' does not say what network it describes: fetch or save the model again")
        found[part] = config | {"class": name}
    denoiser = found.get("unet") or found.get("transformer")
    if denoiser is None:
        raise UserError(f"'{folder}' has neither a unet nor a transformer: give a text-to-image pipeline")
    encoders = [config for part, config in found.items() if part.startswith("text_encoder")]
    facts: Facts = {"denoiser": denoiser, "text_encoders": encoders, "vae": found.get("vae")}
    if not encoders:
        raise UserError(f"'{folder}' has no text encoder: give a text-to-image pipeline")
    wide = denoiser.get("cross_attention_dim") or denoiser.get("joint_attention_dim")
    tokens = max(encoder.get("max_position_embeddings", 77) for encoder in encoders)
    facts["text"] = [tokens, denoiser.get("caption_channels", wide)]
    return facts | {"pooled": denoiser.get("pooled_projection_dim")}


def build(config: Facts) -> nn.Module:
    """Build a network of diffusers or transformers on the meta device."""
    import diffusers
    import transformers

    config = dict(config)
    name = config.pop("class")
    with torch.device("meta"):
        if hasattr(diffusers, name):
            network: nn.Module = getattr(diffusers, name).from_config(config)
        elif hasattr(transformers, name):
            cls = getattr(transformers, name)
            network = cls(cls.config_class(**config))
        else:
            raise UserError(f"the network '{name}' is of neither diffusers nor transformers, so its size is not known")
    return network


def denoiser(facts: Facts, precision: str) -> nn.Module:
    """Build the denoiser in this precision, frozen."""
    network = nn.Module.to(build(facts["denoiser"]), TYPES[precision])  # diffusers' own `to` warns
    return network.eval().requires_grad_(False)


def size_of(network: nn.Module) -> int:
    """Return the bytes of a network's parameters and buffers."""
    return sum(x.numel() * x.element_size() for x in [*network.parameters(), *network.buffers()])


def others(facts: Facts, offload: str, size: int) -> int:
    """Return the bytes of text encoders and VAE that the GPU holds, at most, at `size` bytes a number."""
    encoders = [build(config) for config in facts["text_encoders"]]
    vae = _count(build(facts["vae"])) if facts.get("vae") else 0
    if offload == "none":
        return size * (vae + sum(map(_count, encoders)))
    if offload == "model":
        return size * max(vae, *map(_count, encoders))
    layers = [_count(m, recurse=False) for encoder in encoders for m in encoder.modules()]
    return size * max(vae, *layers)


def _count(network: nn.Module, recurse: bool = True) -> int:
    return sum(x.numel() for x in network.parameters(recurse))


def scored(network: nn.Module, granularity: Facts | None) -> list[str]:
    """Return the names of the Linears that get gradients: those of a granularity's config, or of all (None)."""
    from cad_exp.interventions.spaces import FF_IN, find_sites, make_granularity

    sites = find_sites(network, granularity is not None and FF_IN in (granularity["kinds"] or ()))
    if granularity is not None:
        sites = make_granularity(granularity["name"], granularity["kinds"]).sites(sites)
    return list(dict.fromkeys(site.module for site in sites))


def latent(facts: Facts, resolution: int | None = None) -> int:
    """Return the side of the latents: of an image of `resolution` pixels, else the model's own."""
    scale = 2 ** (len(facts["vae"]["block_out_channels"]) - 1) if facts.get("vae") else 8
    own = facts.get("latent") or facts["denoiser"]["sample_size"]
    if isinstance(own, list):
        if resolution is None and len(set(own)) > 1:
            raise not_square(own, scale, "this model")
        own = own[0]
    return resolution // scale if resolution else own


def channels(network: nn.Module) -> int:
    """Return the channels of a denoiser's noisy latents; FLUX takes 2 x 2 positions in one step."""
    config: Any = network.config
    count: int = config.in_channels
    return count // 4 if type(network).__name__ == "FluxTransformer2DModel" else count


def peak(network: nn.Module, facts: Facts, modules: Iterable[str], side: int, batch: int = 1) -> int:
    """Return the bytes of activations at the worst moment of a forward and backward pass.

    Parameters and gradients are left out.

    network: the denoiser, on the meta device or with data; modules: the Linears whose weights get gradients.
    """
    device, dtype = (first := next(network.parameters())).device, first.dtype
    args, kwargs = inputs(network, facts, side, batch, device, dtype)
    weights = {f"{name}.weight": network.get_parameter(f"{name}.weight").detach().clone() for name in modules}
    for weight in weights.values():
        weight.requires_grad_().register_post_accumulate_grad_hook(_dropped)  # gradients are counted elsewhere
    live = Live()
    live.ignore([*network.parameters(), *network.buffers(), *weights.values()])
    with flash() if device.type == "meta" else nullcontext(), live, torch.enable_grad():
        output = torch.func.functional_call(network, weights, args, kwargs, tie_weights=False)[0]
        output.float().square().mean().backward()
    return live.most


def _dropped(weight: Tensor) -> None:
    weight.grad = None


def inputs(
    network: nn.Module, facts: Facts, side: int, batch: int, device: torch.device, dtype: torch.dtype
) -> tuple[tuple[Tensor, ...], dict[str, Any]]:
    """Return the arguments of one call of a denoiser of diffusers, at latents of side x side."""
    config: Any = network.config
    tokens, width = facts["text"]

    def ones(*shape: int) -> Tensor:
        return torch.ones(*shape, device=device, dtype=dtype)

    text, t = ones(batch, tokens, width), torch.ones(batch, device=device)
    name, channels = type(network).__name__, config.in_channels
    if name == "UNet2DConditionModel":
        added = None
        if config.addition_embed_type == "text_time":
            added = {"text_embeds": ones(batch, facts["pooled"]), "time_ids": ones(batch, 6)}
        return (ones(batch, channels, side, side), t), {
            "encoder_hidden_states": text,
            "added_cond_kwargs": added,
            "return_dict": False,
        }
    call: dict[str, Any] = {"encoder_hidden_states": text, "timestep": t, "return_dict": False}
    if name == "SD3Transformer2DModel":
        call |= {"pooled_projections": ones(batch, facts["pooled"])}
    elif name == "PixArtTransformer2DModel":
        call |= {"added_cond_kwargs": {"resolution": None, "aspect_ratio": None}}
    elif name == "FluxTransformer2DModel":
        places = (side // 2) ** 2
        call |= {"pooled_projections": ones(batch, facts["pooled"]), "img_ids": ones(places, 3)}
        call |= {"txt_ids": ones(tokens, 3), "guidance": t if config.guidance_embeds else None}
        return (ones(batch, places, channels),), call
    else:
        raise UserError(
            "what the denoiser of this model needs is not known: give one of Stable Diffusion (also XL and 3), "
            "PixArt or FLUX"
        )
    return (ones(batch, channels, side, side),), call


class Live(TorchDispatchMode):
    """Counts the bytes of all storages that operations made and that are still alive; `most` is their peak."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch leaves it without types
        self.seen: set[int] = set()
        self.now = self.most = 0

    def ignore(self, tensors: Iterable[Tensor]) -> None:
        """Leave out storages that were there before."""
        self.kept = [x.untyped_storage() for x in tensors]
        self.seen |= {storage._cdata for storage in self.kept}

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for x in tree_leaves(result):
            if isinstance(x, Tensor):
                self._note(x.untyped_storage())
        return result

    def _note(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self.seen:
            return
        self.seen.add(key)
        self.now += size
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._gone, key, size).atexit = False

    def _gone(self, key: int, size: int) -> None:
        self.seen.discard(key)
        self.now -= size


@contextmanager
def flash() -> Iterator[None]:
    """Let attention keep what flash kernels keep; the meta device itself would take the plain formula."""
    # Not by a TorchFunctionMode: it is off in the backward pass, where checkpointed blocks compute again.
    before = F.scaled_dot_product_attention
    F.scaled_dot_product_attention = lambda query, key, value, *_, **__: _Attention.apply(query, key, value)
    try:
        yield
    finally:
        F.scaled_dot_product_attention = before


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        output = torch.empty_like(query)
        ctx.save_for_backward(query, key, value, output, query.new_empty(query.shape[:-1], dtype=torch.float32))
        return output

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        return tuple(torch.empty_like(x) for x in ctx.saved_tensors[:3])
