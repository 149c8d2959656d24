"""Choose components by their scores, or at random with an equal budget: the edits that scores make."""

import math
from collections.abc import Iterable
from fractions import Fraction
from typing import Any, Protocol

import torch
from torch import Tensor

from cad_exp.interventions.edit import Edit
from cad_exp.interventions.spaces import Granularity, Site
from cad_exp.utils.errors import UserError, choose

SIGNS = {"positive": 1, "negative": -1}
ROUNDINGS = {"ceil": math.ceil, "floor": math.floor}


class Scored(Protocol):
    """What selection needs of an attribution: signed scores (n,) per granularity, and what they are of."""

    scores: dict[str, Tensor]
    sites: list[Site]
    meta: dict

    def granularity(self, name: str) -> Granularity:
        """The granularity that was scored under this name; UserError if it was not."""
        ...

    def narrow(self, name: str, kinds: Iterable[str] | None) -> "Scored":
        """Only this granularity, in sites of these kinds; UserError for none."""
        ...


def select(
    attribution: Scored,
    granularity: str,
    sign: str = "positive",
    ratio: float | None = None,
    count: int | None = None,
    scope: str = "global",
    factor: float = 0.0,
    kinds: Iterable[str] | None = None,
    rounding: str = "ceil",
) -> Edit:
    """Choose the strongest components of one sign: ceil(ratio * size) in every group of the scope, or `count` in all.

    Only the wanted sign is chosen, so `achieved` may be below `requested` (both in meta); ties go to the lower index.
    ratio in (0, 1]; count >= 1 and only with scope=global; kinds restricts the kinds of site. rounding=floor, the
    public CAD code's, leaves groups shorter than 1 / ratio alone. UserError otherwise, and where nothing would be left.
    """
    direction = SIGNS[choose(sign, SIGNS, "sign")]
    attribution = attribution.narrow(granularity, kinds)
    cut, scores = attribution.granularity(granularity), attribution.scores[granularity]
    quota = _quota(ratio, count, scope, rounding)
    chosen, requested = [torch.zeros(0, dtype=torch.long)], 0
    for start, groups, size in cut.segments(attribution.sites, scope):
        part = scores[start : start + groups * size].view(groups, size) * direction
        k = min(quota(size), size)
        values, order = part.sort(dim=1, descending=True, stable=True)
        flat = order[:, :k] + torch.arange(groups)[:, None] * size + start
        chosen.append(flat[values[:, :k] > 0])
        requested += k * groups
    if not requested and rounding == "floor":
        raise UserError(f"rounding=floor leaves nothing of ratio={ratio} in any group: use a larger ratio, or ceil")
    selected = torch.cat(chosen)
    meta = {"edit": "select", "sign": sign, "ratio": ratio, "count": count, "rounding": rounding}
    meta["requested"] = requested
    return _edit(attribution, cut, selected, scope, factor, meta)


def random_edit(like: Edit, attribution: Scored, granularity: str | None = None, seed: int = 0) -> Edit:
    """An edit of equal budget, drawn by the seed: as many components and as many weights as `like` has.

    In every group of the scope as many components of each size (in weights) as `like` has there. Where that would be
    `like` itself, as with one layer of a size, sizes are left out of account, and only the number of components is
    equal; `changed` of both edits' meta says how many weights each has.
    """
    name, scope = granularity or like.meta["granularity"], like.meta["scope"]
    attribution = attribution.narrow(name, like.meta["kinds"])
    cut, sites = attribution.granularity(name), attribution.sites
    taken = torch.zeros(len(attribution.scores[name]), dtype=torch.bool)
    taken[cut.components(sites, like.indices)] = True
    segments, sizes = cut.segments(sites, scope), cut.weights(sites)
    of_size = [taken[sizes == size] for size in sizes.unique()]
    if all(own.all() or not own.any() for own in of_size):  # then only `like` itself has these sizes
        sizes = torch.zeros_like(sizes)
    chosen = _drawn(taken, sizes, segments, seed)
    meta = {"edit": "random", "sign": None, "requested": like.meta["achieved"], "random_seed": seed}
    return _edit(attribution, cut, chosen, scope, like.factor, meta)


def _drawn(taken: Tensor, sizes: Tensor, segments: list[tuple[int, int, int]], seed: int) -> Tensor:
    """Random components (k,): in every group of the segments as many of each size as are taken there."""
    generator = torch.Generator().manual_seed(seed)
    chosen = [torch.zeros(0, dtype=torch.long)]
    for start, groups, size in segments:
        own, kinds = taken[start : start + groups * size].view(groups, size), sizes[start : start + size]
        order = torch.rand(groups, size, generator=generator).argsort(dim=1)
        for kind in kinds.unique():
            of_kind = (kinds == kind)[order]  # in the drawn order
            among = of_kind & (of_kind.cumsum(1) <= (own & (kinds == kind)).sum(1, keepdim=True))
            chosen.append((order + torch.arange(groups)[:, None] * size + start)[among])
    return torch.cat(chosen)


def no_edit(attribution: Scored | None = None) -> Edit:
    """The edit that changes nothing."""
    return Edit({}, meta={**(attribution.meta if attribution else {}), "edit": "none", "requested": 0, "achieved": 0})


def _quota(ratio: float | None, count: int | None, scope: str, rounding: str = "ceil") -> Any:
    """Components per group of a given size. The ratio counts as written: 0.1 of 30 is 3, whatever binary floats say."""
    whole = ROUNDINGS[choose(rounding, ROUNDINGS, "rounding")]
    if (ratio is None) == (count is None):
        raise UserError("say how much to edit: either ratio or count, not both")
    if ratio is not None:
        if not 0 < ratio <= 1:
            raise UserError(f"ratio={ratio} is out of range: use a number above 0 and up to 1")
        return lambda size: whole(Fraction(str(ratio)) * size)
    if scope != "global":
        raise UserError(f"count={count} counts over the whole model: use scope=global, or a ratio with scope={scope}")
    if count < 1:
        raise UserError(f"count={count} is out of range: use 1 or more, or edit=none")
    return lambda size: count


def _edit(attribution: Scored, cut: Granularity, selected: Tensor, scope: str, factor: float, meta: dict) -> Edit:
    indices = cut.locate(attribution.sites, selected)
    rows = {site.module: site.shape[0] if cut.unit == "column" else 1 for site in attribution.sites}
    facts = {
        "granularity": cut.name,
        "kinds": list(cut.kinds),
        "scope": scope,
        "factor": factor,
        "achieved": len(selected),
        "components": cut.count(attribution.sites),
        "changed": sum(len(places) * rows[name] for name, places in indices.items()),
    }
    return Edit(indices, cut.unit, factor, {**attribution.meta, **facts, **meta})
