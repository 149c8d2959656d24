"""Where components of weights live: one `Site` per output projection, found by class and never by path.

A feed-forward neuron or an attention head is a group of columns of an output projection: zeroing those columns of the
weight equals masking the projection's input. So one gradient of shape (out, in) per site serves every granularity.

Where text and image attend together (SD3, FLUX), attention is of the kind `joint-attention`, and who asks for
cross-attention, the place where the prompt comes in, gets it too. Such a network keeps the text's stream beside the
image's: its blocks are named "transformer_blocks.3" and "transformer_blocks.3 (text)".

A feed-forward block's first projection (`feed-forward-in`) is no output projection: its columns are no neurons. Its
single weights can be scored and edited where they are asked for, as the public CAD code does.
"""

from dataclasses import dataclass
from typing import Any

from diffusers.models.attention import FeedForward
from diffusers.models.attention_processor import Attention
from diffusers.models.transformers.transformer_flux import FluxAttention, FluxSingleTransformerBlock
from torch import nn

from cad_exp.utils.errors import UserError

SELF, CROSS, JOINT, FF = "self-attention", "cross-attention", "joint-attention", "feed-forward"
KINDS = (SELF, CROSS, JOINT, FF)
ATTENTION = (SELF, CROSS, JOINT)
TEXT_ATTENTION, TEXT_FF = "text-attention", "text-feed-forward"
TEXT = (TEXT_ATTENTION, TEXT_FF)  # of the text encoders (cad_exp/interventions/spaces/text_sites.py)
FF_IN = "feed-forward-in"  # the first projection of a feed-forward block
OPTIONAL = (*TEXT, FF_IN)  # only where they are asked for
ALSO = {CROSS: (JOINT,)}  # kinds that are meant as well where one is asked for
_STAGES = {"down_blocks": 0, "mid_block": 1, "up_blocks": 2}


@dataclass(frozen=True)
class Site:
    """One output projection of the denoiser: a Linear whose input columns are components (its bias stays).

    Of the kind FF_IN it is a first projection, and only its weights are components.

    In FLUX's single-stream blocks one Linear projects attention and feed-forward, each having a range of the columns.
    """

    module: str  # dotted name of the Linear in the denoiser; of a text encoder's "text_encoder:name"
    block: str  # the block that a person would name, "up_blocks.1.attentions.0"
    kind: str  # one of KINDS or OPTIONAL
    shape: tuple[int, int]  # (out, in) of the site's own columns
    heads: int = 0  # attention heads, 0 for feed-forward
    first: int = 0  # where its columns begin in the Linear's weight
    total: int = 0  # columns of the Linear's weight; 0: the site has all of them

    @property
    def size(self) -> int:
        """Number of weights."""
        return self.shape[0] * self.shape[1]

    @property
    def width(self) -> int:
        """Columns of the Linear's whole weight."""
        return self.total or self.shape[1]

    @property
    def columns(self) -> slice:
        """The site's own among them."""
        return slice(self.first, self.first + self.shape[1])


def find_sites(denoiser: nn.Module, inputs: bool = False) -> list[Site]:
    """Return every attention and feed-forward output projection in forward order, found by class, never by path.

    Args:
        denoiser: the network of any family, such as `model.denoiser`.
        inputs: also the feed-forward blocks' first projections, each before its output projection.

    Raises:
        UserError: the network has none.

    Examples:
        >>> model = cad_exp.DiffusionModel.load("mini", device="cpu")
        >>> sorted({site.kind for site in cad_exp.find_sites(model.denoiser)})
        ['cross-attention', 'feed-forward', 'self-attention']
    """
    modules = dict(denoiser.named_modules())
    sites = []
    for name, module in modules.items():
        sites += _first_of(name, module, modules) if inputs else []
        sites += _sites_of(name, module, modules)
    if not sites:
        raise UserError("the denoiser has no attention or feed-forward block of diffusers: this model is not supported")
    # diffusers defines the middle block after the upper ones; a reader expects the order of the forward pass.
    return sorted(sites, key=lambda site: _STAGES.get(site.module.split(".")[0], 0))


def _first_of(name: str, module: nn.Module, modules: dict[str, nn.Module]) -> list[Site]:
    """Return a feed-forward block's first projection, whatever its activation; in FLUX's single stream `proj_mlp`."""
    if isinstance(module, FluxSingleTransformerBlock):
        return [Site(f"{name}.proj_mlp", name, FF_IN, (module.proj_mlp.out_features, module.proj_mlp.in_features))]
    if not isinstance(module, FeedForward):
        return []
    first = next(place for place, layer in module.named_modules() if isinstance(layer, nn.Linear))
    text = name.rpartition(".")[2] == "ff_context"
    return [_site(f"{name}.{first}", name, FF_IN, modules, text=text)]


def _sites_of(name: str, module: nn.Module, modules: dict[str, nn.Module]) -> list[Site]:
    """Return the output projections that one module owns: two where streams are joint, none for most modules."""
    if isinstance(module, FluxSingleTransformerBlock):
        return _single_stream(name, module)
    if isinstance(module, FeedForward):
        last = max(i for i, layer in enumerate(module.net) if isinstance(layer, nn.Linear))
        text = name.rpartition(".")[2] == "ff_context"  # the class is the same in both streams
        return [_site(f"{name}.net.{last}", name, FF, modules, text=text)]
    if not isinstance(module, (Attention, FluxAttention)) or getattr(module, "to_out", None) is None:
        return []
    if module.added_kv_proj_dim is None:
        kind = CROSS if getattr(module, "is_cross_attention", False) else SELF
        return [_site(f"{name}.to_out.0", name, kind, modules, module.heads)]
    found = [_site(f"{name}.to_out.0", name, JOINT, modules, module.heads)]
    if getattr(module, "to_add_out", None) is not None:  # the last block of SD3 drops the text
        found.append(_site(f"{name}.to_add_out", name, JOINT, modules, module.heads, text=True))
    return found


def _site(place: str, owner: str, kind: str, modules: dict[str, nn.Module], heads: int = 0, text: bool = False) -> Site:
    place = place.lstrip(".")
    linear: Any = modules[place]
    shape = (linear.out_features, linear.in_features)
    return Site(place, _block(owner, modules) + (" (text)" if text else ""), kind, shape, heads)


def _single_stream(name: str, block: FluxSingleTransformerBlock) -> list[Site]:
    """FLUX's single stream, text and image in one sequence: proj_out takes [attention, feed-forward] as its input."""
    place, width, out = f"{name}.proj_out", block.proj_out.in_features, block.proj_out.out_features
    inner = block.attn.heads * block.attn.head_dim
    return [
        Site(place, name, JOINT, (out, inner), block.attn.heads, 0, width),
        Site(place, name, FF, (out, width - inner), 0, inner, width),
    ]


def _block(owner: str, modules: dict[str, nn.Module]) -> str:
    """Return the block around an attention or feed-forward module, without a lone `transformer_blocks.0`."""
    parent = owner.rpartition(".")[0]
    if not parent or isinstance(modules[parent], nn.ModuleList):
        return owner
    container = parent.rpartition(".")[0]
    if parent.endswith("transformer_blocks.0") and len(list(modules[container].children())) == 1:
        return container.rpartition(".")[0] or parent
    return parent
