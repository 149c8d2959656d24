"""Where components live: one `Site` per output projection, and four granularities that cut it into components.

A feed-forward neuron or an attention head is a group of columns of an output projection: zeroing those columns of the
weight equals masking the projection's input. So one gradient of shape (out, in) per site serves every granularity.

Where text and image attend together (SD3, FLUX), attention is of the kind `joint-attention`, and who asks for
cross-attention, the place where the prompt comes in, gets it too. Such a network keeps the text's stream beside the
image's: its blocks are named "transformer_blocks.3" and "transformer_blocks.3 (text)".

A feed-forward block's first projection (`feed-forward-in`) is no output projection: its columns are no neurons. Its
single weights can be scored and edited where they are asked for, as the public CAD code does.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from diffusers.models.attention import FeedForward
from diffusers.models.attention_processor import Attention
from diffusers.models.transformers.transformer_flux import FluxAttention, FluxSingleTransformerBlock
from torch import Tensor, nn

from cad_exp.utils.errors import UserError, choose

SELF, CROSS, JOINT, FF = "self-attention", "cross-attention", "joint-attention", "feed-forward"
KINDS = (SELF, CROSS, JOINT, FF)
ATTENTION = (SELF, CROSS, JOINT)
TEXT_ATTENTION, TEXT_FF = "text-attention", "text-feed-forward"
TEXT = (TEXT_ATTENTION, TEXT_FF)  # of the text encoders (cad_exp/interventions/text_encoders.py)
FF_IN = "feed-forward-in"  # the first projection of a feed-forward block
OPTIONAL = (*TEXT, FF_IN)  # only where they are asked for
ALSO = {CROSS: (JOINT,)}  # kinds that are meant as well where one is asked for
SCOPES = ("row", "layer", "global")
COLUMNS = ["index", "module", "block", "kind", "component", "name", "start", "stop"]
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
    """Every attention and feed-forward output projection in forward order, found by class and never by path.

    inputs: also the feed-forward blocks' first projections, each before its output projection. Raises UserError if the
    network has none.
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
    """The first projection of a feed-forward block, whatever its activation; in FLUX's single stream `proj_mlp`."""
    if isinstance(module, FluxSingleTransformerBlock):
        return [Site(f"{name}.proj_mlp", name, FF_IN, (module.proj_mlp.out_features, module.proj_mlp.in_features))]
    if not isinstance(module, FeedForward):
        return []
    first = next(place for place, layer in module.named_modules() if isinstance(layer, nn.Linear))
    text = name.rpartition(".")[2] == "ff_context"
    return [_site(f"{name}.{first}", name, FF_IN, modules, text=text)]


def _sites_of(name: str, module: nn.Module, modules: dict[str, nn.Module]) -> list[Site]:
    """The output projections that one module owns: two where streams are joint, none for most modules."""
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
    shape = (modules[place].out_features, modules[place].in_features)
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
    """The block around an attention or feed-forward module; a lone `transformer_blocks.0` is left out as noise."""
    parent = owner.rpartition(".")[0]
    if not parent or isinstance(modules[parent], nn.ModuleList):
        return owner
    container = parent.rpartition(".")[0]
    if parent.endswith("transformer_blocks.0") and len(modules[container]) == 1:
        return container.rpartition(".")[0] or parent
    return parent


class Granularity:
    """A cut of sites into components, numbered site after site. `kinds` restricts which kinds of site take part."""

    name: str
    unit: str = "column"  # what `locate` returns: input columns, or flat entries of the weight
    default_kinds: tuple[str, ...] = KINDS
    allowed_kinds: tuple[str, ...] = KINDS  # that are usual; `optional_kinds` may be asked for as well
    optional_kinds: tuple[str, ...] = TEXT
    scopes: tuple[str, ...] = ("layer", "global")

    def __init__(self, kinds: Iterable[str] | None = None):
        kinds = self.default_kinds if kinds is None else ((kinds,) if isinstance(kinds, str) else tuple(kinds))
        known = self.allowed_kinds + self.optional_kinds
        self.kinds = tuple(choose(kind, known, f"kind for granularity {self.name}") for kind in kinds)
        if not self.kinds:
            raise UserError(f"granularity {self.name} needs at least one kind of: {', '.join(self.allowed_kinds)}")

    def covers(self, kind: str) -> bool:
        """Whether sites of this kind take part."""
        return kind in self.kinds or any(kind in ALSO.get(asked, ()) for asked in self.kinds)

    def sites(self, all_sites: Sequence[Site]) -> list[Site]:
        """The sites that this granularity covers, in their order."""
        return [site for site in all_sites if self.covers(site.kind)]

    def parts(self, site: Site) -> int:
        """Number of components in one site; components are equally wide."""
        raise NotImplementedError

    def count(self, sites: Sequence[Site]) -> int:
        return sum(self.parts(site) for site in self.sites(sites))

    def reduce(self, scores: dict[str, Tensor], sites: Sequence[Site]) -> Tensor:
        """Weight scores, (out, in) per module, to component scores (n,) fp32: a component's is its weights' sum."""
        chosen = self.sites(sites)
        pieces = [scores[s.module][:, s.columns].float().sum(0).view(self.parts(s), -1).sum(1) for s in chosen]
        return torch.cat(pieces) if pieces else torch.zeros(0)

    def table(self, sites: Sequence[Site]) -> pd.DataFrame:
        """One row per component: index, module, block, kind, component (in its site), name, start, stop (columns)."""
        rows = []
        for site in self.sites(sites):
            width = site.shape[1] // self.parts(site)
            for part in range(self.parts(site)):
                name = self.title(site, part)
                start = site.first + part * width
                row = (len(rows), site.module, site.block, site.kind, part, name, start, start + width)
                rows.append(row)
        return pd.DataFrame(rows, columns=COLUMNS)

    def title(self, site: Site, part: int) -> str:
        """A component's name for a person."""
        return f"{site.block} · {site.kind} · {self.name} {part}"

    def locate(self, sites: Sequence[Site], selected: Tensor) -> dict[str, Tensor]:
        """Component numbers (k,) to sorted weight indices per module: input columns, or flat entries (see `unit`)."""
        selected, located, offset = selected.long().sort().values, {}, 0
        for site in self.sites(sites):
            parts = self.parts(site)
            first, last = torch.searchsorted(selected, torch.tensor([offset, offset + parts])).tolist()
            if last > first:
                found = self._expand(site, selected[first:last] - offset)
                if site.module in located:  # two sites share the module
                    found = torch.cat([located[site.module], found]).sort().values
                located[site.module] = found
            offset += parts
        return located

    def components(self, sites: Sequence[Site], indices: dict[str, Tensor]) -> Tensor:
        """The inverse of `locate`: sorted component numbers that the weight indices belong to."""
        found, offset = [], 0
        for site in self.sites(sites):
            if site.module in indices:
                found.append(torch.unique(self._contract(site, indices[site.module].long())) + offset)
            offset += self.parts(site)
        return torch.cat(found) if found else torch.zeros(0, dtype=torch.long)

    def _expand(self, site: Site, parts: Tensor) -> Tensor:
        """Components (k,) of a site to the sorted indices of their weights, in `unit`s."""
        width = site.shape[1] // self.parts(site)
        return (parts[:, None] * width + torch.arange(width)).flatten() + site.first

    def _contract(self, site: Site, indices: Tensor) -> Tensor:
        """The inverse; indices of the same module that are another site's are left out."""
        own = indices - site.first
        own = own[(own >= 0) & (own < site.shape[1])]
        return own // (site.shape[1] // self.parts(site))

    def segments(self, sites: Sequence[Site], scope: str) -> list[tuple[int, int, int]]:
        """The groups in which components compete, as (start, groups, group size) runs of the score vector.

        scope `row`: one group per output row of a matrix (weights only); `layer`: one per site; `global`: all together.
        """
        choose(scope, SCOPES, "scope")
        if scope not in self.scopes:
            raise UserError(
                f"granularity {self.name} has no scope '{scope}': use scope={' or scope='.join(self.scopes)}"
            )
        if scope == "global":
            return [(0, 1, self.count(sites))]
        runs, start = [], 0
        for site in self.sites(sites):
            runs.append((start, *(site.shape if scope == "row" else (1, self.parts(site)))))
            start += self.parts(site)
        return runs

    def weights(self, sites: Sequence[Site]) -> Tensor:
        """How many single weights (n,) int64 each component has."""
        pieces = [torch.full((self.parts(site),), site.size // self.parts(site)) for site in self.sites(sites)]
        return torch.cat(pieces) if pieces else torch.zeros(0, dtype=torch.long)

    def groups(self, sites: Sequence[Site], scope: str) -> Tensor:
        """Group number (n,) of every component for a scope."""
        pieces, first = [torch.zeros(0, dtype=torch.long)], 0
        for _, groups, size in self.segments(sites, scope):
            pieces.append(torch.arange(first, first + groups).repeat_interleave(size))
            first += groups
        return torch.cat(pieces)


class Weight(Granularity):
    """Every entry of an output projection. Too many for one row each: `table` has one row per matrix."""

    name, unit, scopes, optional_kinds = "weight", "entry", SCOPES, OPTIONAL

    def parts(self, site: Site) -> int:
        return site.size

    def reduce(self, scores: dict[str, Tensor], sites: Sequence[Site]) -> Tensor:
        chosen = self.sites(sites)
        pieces = [scores[site.module][:, site.columns].float().flatten() for site in chosen]
        return torch.cat(pieces) if pieces else torch.zeros(0)

    def table(self, sites: Sequence[Site]) -> pd.DataFrame:
        """One row per matrix; start and stop are its range in the score vector."""
        rows, start = [], 0
        for number, site in enumerate(self.sites(sites)):
            name = f"{site.block} · {site.kind} · weights"
            rows.append((number, site.module, site.block, site.kind, 0, name, start, start + site.size))
            start += site.size
        return pd.DataFrame(rows, columns=COLUMNS)

    def _expand(self, site: Site, parts: Tensor) -> Tensor:
        row, column = parts // site.shape[1], parts % site.shape[1]
        return row * site.width + column + site.first

    def _contract(self, site: Site, indices: Tensor) -> Tensor:
        row, column = indices // site.width, indices % site.width - site.first
        own = (column >= 0) & (column < site.shape[1])
        return row[own] * site.shape[1] + column[own]


class Neuron(Granularity):
    """One input column of an output projection: a hidden unit of a feed-forward block, or a channel of an attention."""

    name, default_kinds = "neuron", (FF,)

    def parts(self, site: Site) -> int:
        return site.shape[1]


class Head(Granularity):
    """One attention head: its columns of the attention's output projection."""

    name, default_kinds, allowed_kinds, optional_kinds = "head", ATTENTION, ATTENTION, (TEXT_ATTENTION,)

    def parts(self, site: Site) -> int:
        return site.heads


class Layer(Granularity):
    """A whole output projection: all heads of one attention, or all neurons of one feed-forward block."""

    name, scopes = "layer", ("global",)

    def parts(self, site: Site) -> int:
        return 1

    def title(self, site: Site, part: int) -> str:
        return f"{site.block} · {site.kind}"


GRANULARITIES = {cls.name: cls for cls in (Weight, Neuron, Head, Layer)}


def make_granularity(name: str, kinds: Iterable[str] | None = None) -> Granularity:
    """A granularity by name (`weight`, `neuron`, `head`, `layer`); without `kinds`, of those that are usual for it.

    UserError for an unknown name or kind.
    """
    return GRANULARITIES[choose(name, GRANULARITIES, "granularity")](kinds)
