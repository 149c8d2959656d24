"""Where components live: one `Site` per output projection, and four granularities that cut it into components.

A feed-forward neuron or an attention head is a group of columns of an output projection: zeroing those columns of the
weight equals masking the projection's input. So one gradient of shape (out, in) per site serves every granularity.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from diffusers.models.attention import FeedForward
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

from cad_exp.errors import UserError, choose

SELF, CROSS, FF = "self-attention", "cross-attention", "feed-forward"
KINDS = (SELF, CROSS, FF)
SCOPES = ("row", "layer", "global")
_STAGES = {"down_blocks": 0, "mid_block": 1, "up_blocks": 2}


@dataclass(frozen=True)
class Site:
    """One output projection of the denoiser: a Linear whose input columns are components (its bias stays)."""

    module: str  # dotted name of the Linear in the denoiser
    block: str  # the block that a person would name, "up_blocks.1.attentions.0"
    kind: str  # one of KINDS
    shape: tuple[int, int]  # (out, in)
    heads: int = 0  # attention heads, 0 for feed-forward

    @property
    def size(self) -> int:
        return self.shape[0] * self.shape[1]


def find_sites(denoiser: nn.Module) -> list[Site]:
    """Every attention and feed-forward output projection in forward order, found by class and never by path.

    Raises UserError if the network has none.
    """
    modules = dict(denoiser.named_modules())
    sites = []
    for name, module in modules.items():
        if isinstance(module, Attention) and module.to_out is not None:
            place, kind, heads = f"{name}.to_out.0", CROSS if module.is_cross_attention else SELF, module.heads
        elif isinstance(module, FeedForward):
            last = max(i for i, layer in enumerate(module.net) if isinstance(layer, nn.Linear))
            place, kind, heads = f"{name}.net.{last}", FF, 0
        else:
            continue
        place = place.lstrip(".")
        shape = (modules[place].out_features, modules[place].in_features)
        sites.append(Site(place, _block(name, modules), kind, shape, heads))
    if not sites:
        raise UserError("the denoiser has no attention or feed-forward block of diffusers: this model is not supported")
    # diffusers defines the middle block after the upper ones; a reader expects the order of the forward pass.
    return sorted(sites, key=lambda site: _STAGES.get(site.module.split(".")[0], 0))


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
    allowed_kinds: tuple[str, ...] = KINDS
    scopes: tuple[str, ...] = ("layer", "global")

    def __init__(self, kinds: Iterable[str] | None = None):
        kinds = self.default_kinds if kinds is None else ((kinds,) if isinstance(kinds, str) else tuple(kinds))
        self.kinds = tuple(choose(kind, self.allowed_kinds, f"kind for granularity {self.name}") for kind in kinds)
        if not self.kinds:
            raise UserError(f"granularity {self.name} needs at least one kind of: {', '.join(self.allowed_kinds)}")

    def sites(self, all_sites: Sequence[Site]) -> list[Site]:
        """The sites that this granularity covers, in their order."""
        return [site for site in all_sites if site.kind in self.kinds]

    def parts(self, site: Site) -> int:
        """Number of components in one site; components are equally wide."""
        raise NotImplementedError

    def count(self, sites: Sequence[Site]) -> int:
        return sum(self.parts(site) for site in self.sites(sites))

    def reduce(self, scores: dict[str, Tensor], sites: Sequence[Site]) -> Tensor:
        """Weight scores, (out, in) per module, to component scores (n,) fp32: a component's is its weights' sum."""
        chosen = self.sites(sites)
        pieces = [scores[s.module].float().sum(0).view(self.parts(s), -1).sum(1) for s in chosen]
        return torch.cat(pieces) if pieces else torch.zeros(0)

    def table(self, sites: Sequence[Site]) -> pd.DataFrame:
        """One row per component: index, module, block, kind, component (in its site), name, start, stop (columns)."""
        rows = []
        for site in self.sites(sites):
            width = site.shape[1] // self.parts(site)
            for part in range(self.parts(site)):
                name = self.title(site, part)
                row = (len(rows), site.module, site.block, site.kind, part, name, part * width, (part + 1) * width)
                rows.append(row)
        return pd.DataFrame(rows, columns=["index", "module", "block", "kind", "component", "name", "start", "stop"])

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
                located[site.module] = self._expand(site, selected[first:last] - offset)
            offset += parts
        return located

    def components(self, sites: Sequence[Site], indices: dict[str, Tensor]) -> Tensor:
        """The inverse of `locate`: sorted component numbers that the weight indices belong to."""
        found, offset = [], 0
        for site in self.sites(sites):
            if site.module in indices:
                found.append(torch.unique(indices[site.module].long() // self._width(site)) + offset)
            offset += self.parts(site)
        return torch.cat(found) if found else torch.zeros(0, dtype=torch.long)

    def _width(self, site: Site) -> int:
        """Weight indices (in `unit`s) per component."""
        return site.shape[1] // self.parts(site)

    def _expand(self, site: Site, parts: Tensor) -> Tensor:
        width = self._width(site)
        return (parts[:, None] * width + torch.arange(width)).flatten()

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

    def groups(self, sites: Sequence[Site], scope: str) -> Tensor:
        """Group number (n,) of every component for a scope."""
        pieces, first = [torch.zeros(0, dtype=torch.long)], 0
        for _, groups, size in self.segments(sites, scope):
            pieces.append(torch.arange(first, first + groups).repeat_interleave(size))
            first += groups
        return torch.cat(pieces)


class Weight(Granularity):
    """Every entry of an output projection. Too many for one row each: `table` has one row per matrix."""

    name, unit, scopes = "weight", "entry", SCOPES

    def parts(self, site: Site) -> int:
        return site.size

    def reduce(self, scores: dict[str, Tensor], sites: Sequence[Site]) -> Tensor:
        return torch.cat([scores[site.module].float().flatten() for site in self.sites(sites)] or [torch.zeros(0)])

    def table(self, sites: Sequence[Site]) -> pd.DataFrame:
        """One row per matrix; start and stop are its range in the score vector."""
        table = Layer(self.kinds).table(sites)
        sizes = torch.tensor([site.size for site in self.sites(sites)], dtype=torch.long)
        table["stop"] = sizes.cumsum(0).numpy()
        table["start"] = table["stop"] - sizes.numpy()
        table["name"] = [f"{name} · weights" for name in table["name"]]
        return table

    def _width(self, site: Site) -> int:
        return 1

    def _expand(self, site: Site, parts: Tensor) -> Tensor:
        return parts


class Neuron(Granularity):
    """One input column of an output projection: a hidden unit of a feed-forward block, or a channel of an attention."""

    name, default_kinds = "neuron", (FF,)

    def parts(self, site: Site) -> int:
        return site.shape[1]


class Head(Granularity):
    """One attention head: its columns of the attention's output projection."""

    name, default_kinds, allowed_kinds = "head", (SELF, CROSS), (SELF, CROSS)

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
    """A granularity by name (`weight`, `neuron`, `head`, `layer`). UserError for an unknown name or kind."""
    return GRANULARITIES[choose(name, GRANULARITIES, "granularity")](kinds)
