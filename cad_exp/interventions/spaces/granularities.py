"""Granularities: ways to cut output projections into components. On a model's sites each becomes a space."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cad_exp.interventions.granularity_registry import GRANULARITIES
from cad_exp.interventions.spaces.base import SCOPES, ComponentSpace, Scale
from cad_exp.interventions.spaces.columns import Columns
from cad_exp.interventions.spaces.entries import Entries
from cad_exp.interventions.spaces.sites import ALSO, ATTENTION, FF, KINDS, OPTIONAL, TEXT, TEXT_ATTENTION, Site
from cad_exp.models.pipeline import DiffusionModel
from cad_exp.utils.errors import UserError, choose
from cad_exp.utils.registry import fitting


class Granularity:
    """A cut of sites into components, numbered site after site. `kinds` restricts which kinds of site take part."""

    name: str
    default_kinds: tuple[str, ...] = KINDS
    allowed_kinds: tuple[str, ...] = KINDS  # that are usual; `optional_kinds` may be asked for as well
    optional_kinds: tuple[str, ...] = TEXT
    scopes: tuple[str, ...] = ("layer", "global")
    scale: Scale = Scale.FEW
    of_weights: bool = True
    has_values: bool = False
    space: type[Columns] = Columns
    from_sites: bool = True  # whether its components are parts of output projections
    files: tuple[str, ...] = ()  # of its own settings those that are folders, whose content counts
    own: Mapping[str, Any] = {}  # settings of its class, beside the kinds

    def __init__(self, kinds: Iterable[str] | None = None):
        kinds = self.default_kinds if kinds is None else ((kinds,) if isinstance(kinds, str) else tuple(kinds))
        known = self.allowed_kinds + self.optional_kinds
        self.kinds = tuple(choose(kind, known, f"kind for granularity {self.name}") for kind in kinds)
        if not self.kinds:
            raise UserError(f"granularity {self.name} needs at least one kind of: {', '.join(self.allowed_kinds)}")

    def covers(self, kind: str) -> bool:
        """Return whether sites of this kind take part."""
        return kind in self.kinds or any(kind in ALSO.get(asked, ()) for asked in self.kinds)

    def sites(self, all_sites: Sequence[Site]) -> list[Site]:
        """Return the sites that this granularity covers, in their order."""
        return [site for site in all_sites if self.covers(site.kind)]

    def parts(self, site: Site) -> int:
        """Return the number of components in one site; components are equally wide."""
        raise NotImplementedError

    def title(self, site: Site, part: int) -> str:
        """Return a component's name for a person."""
        return f"{site.block} · {site.kind} · {self.name} {part}"

    def narrowed(self, kinds: Iterable[str]) -> Granularity:
        """Return the same granularity on sites of these kinds."""
        return make(type(self), kinds, self.own)

    def singles(self) -> Granularity:
        """Return the cut of the same sites into single weights."""
        return Weight(self.kinds)

    def on(self, sites: Sequence[Site]) -> Columns:
        """Return the space of its components in these sites."""
        return self.space(self, sites)

    def of_model(self, model: DiffusionModel, sites: Sequence[Site]) -> ComponentSpace:
        """Return the space of its components in a model, whose sites are given; a plug-in may make any other space."""
        return self.on(sites)


class Weight(Granularity):
    """Every entry of an output projection. Too many for one row each: the table has one row per matrix."""

    name, scopes, optional_kinds, scale, space = "weight", SCOPES, OPTIONAL, Scale.WEIGHTS, Entries

    def parts(self, site: Site) -> int:
        """Return the number of weights."""
        return site.size


class Neuron(Granularity):
    """One input column of an output projection: a hidden unit of a feed-forward block, or a channel of an attention."""

    name, default_kinds, scale = "neuron", (FF,), Scale.MANY

    def parts(self, site: Site) -> int:
        """Return the number of input columns."""
        return site.shape[1]


class Head(Granularity):
    """One attention head: its columns of the attention's output projection."""

    name, default_kinds, allowed_kinds, optional_kinds = "head", ATTENTION, ATTENTION, (TEXT_ATTENTION,)

    def parts(self, site: Site) -> int:
        """Return the number of attention heads; 0 for other sites."""
        return site.heads


class Layer(Granularity):
    """A whole output projection: all heads of one attention, or all neurons of one feed-forward block."""

    name, scopes = "layer", ("global",)

    def parts(self, site: Site) -> int:
        """Return 1: the site is one component."""
        return 1

    def title(self, site: Site, part: int) -> str:
        """Return the site's own name."""
        return f"{site.block} · {site.kind}"


def make_granularity(name: str, kinds: Iterable[str] | None = None, **own: Any) -> Granularity:
    """Make a granularity, which `attribute` takes in place of a name.

    Args:
        name: a name of GRANULARITIES, such as "neuron", or the dotted path of a class.
        kinds: kinds of site that take part: "self-attention", "cross-attention", "joint-attention", "feed-forward", and
            others that are optional. None takes those that are usual; for neurons these are feed-forward blocks.
        own: settings of the class, such as `autoencoders`, a folder, for "latent".

    Returns:
        The granularity, which cuts the sites of a model into components.

    Raises:
        UserError: an unknown name, kind or setting.

    Examples:
        >>> neurons = cad_exp.make_granularity("neuron", kinds=["cross-attention", "feed-forward"])
        >>> neurons.name, neurons.kinds
        ('neuron', ('cross-attention', 'feed-forward'))
    """
    cls = GRANULARITIES.get(name)
    return make(cls, kinds, fitting(cls, own, f"granularity {name}", 1))


def make(cls: type[Granularity], kinds: Iterable[str] | None, own: Mapping[str, Any]) -> Granularity:
    """Return a granularity of a class that remembers its own settings."""
    made = cls(kinds, **own)
    made.own = own
    return made
