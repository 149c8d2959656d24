"""Choose components by their scores, or at random with an equal budget: the edits that scores make."""

import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from fractions import Fraction
from typing import Any, Protocol

import torch
from torch import Tensor

from cad_exp.interventions.edit import Edit
from cad_exp.interventions.spaces import ComponentSpace
from cad_exp.utils.errors import UserError, choose

SIGNS = {"positive": 1, "negative": -1}
ROUNDINGS = {"ceil": math.ceil, "floor": math.floor}


class Scored(Protocol):
    """What selection needs of an attribution: signed scores (n,) per granularity, and what they are of."""

    scores: dict[str, Tensor]
    meta: dict[str, Any]

    def space(self, name: str) -> ComponentSpace:
        """Return the components that were scored under this name. UserError if none were."""
        ...

    def narrow(self, name: str, kinds: Iterable[str] | None) -> "Scored":
        """Return only this granularity, in sites of these kinds. UserError if there is none."""
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

    Args:
        attribution: the scores.
        granularity: of the components.
        sign: `positive` (they make the concept) or `negative` (they suppress it).
        ratio: share of the components of a group, in (0, 1].
        count: number of components in place of a ratio, at least 1; only with scope=global.
        scope: within which groups the strongest are chosen: `global`, `layer` and others.
        factor: what the chosen ones are multiplied by: 0 switches them off, -1 reverses them.
        kinds: of site that take part; None: all.
        rounding: `ceil`, or `floor` as the public CAD code does: groups shorter than 1 / ratio are left alone.

    Raises:
        UserError: a value out of its range, or nothing would be chosen.

    Examples:
        >>> model = cad_exp.DiffusionModel.load("mini", steps=2)
        >>> latents = cad_exp.sample_trajectory(model, "church", seeds=range(2), steps=2)
        >>> attribution = cad_exp.attribute(model, latents, objective="projection")
        >>> edit = cad_exp.select(attribution, "layer", count=3)
        >>> edit.meta["achieved"]
        3
        >>> with edit.apply(model):
        ...     images = model.generate(["a photo of a church"], seeds=[0])
        >>> images.shape
        (1, 64, 64, 3)
    """
    direction = SIGNS[choose(sign, SIGNS, "sign")]
    attribution = attribution.narrow(granularity, kinds)
    space, scores = attribution.space(granularity), attribution.scores[granularity]
    quota = _quota(ratio, count, scope, rounding)
    chosen, requested = [torch.zeros(0, dtype=torch.long)], 0
    for start, groups, size in space.segments(scope):
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
    meta |= {"scope": scope, "requested": requested}
    return _from(attribution, space.intervention(selected, factor, meta))


def random_edit(like: Edit, attribution: Scored, granularity: str | None = None, seed: int = 0) -> Edit:
    """Draw an edit of equal budget: as many components and as many weights as `like` has.

    Every group of the scope gets as many components of each size (in weights) as `like` has there. Where that would be
    `like` itself, as with one layer of a size, only the number of components is equal. `changed` in the meta of both
    edits says how many weights each has. Where `like` takes all there are, and they are directions, random directions
    stand in their places. Factors of its own are dealt out at random.

    Args:
        like: the edit beside which it stands.
        attribution: the scores that `like` was chosen by; only its components count here.
        granularity: of the components; None takes that of `like`.
        seed: which draw.

    Returns:
        The edit, with the factor and the scope of `like`.

    Raises:
        UserError: the attribution holds no such granularity.

    Examples:
        >>> model = cad_exp.DiffusionModel.load("mini", device="cpu", steps=2)
        >>> latents = cad_exp.sample_trajectory(model, "church", seeds=[0], steps=2)
        >>> attribution = cad_exp.attribute(model, latents, granularities=["head"])
        >>> edit = cad_exp.select(attribution, "head", count=3)
        >>> control = cad_exp.random_edit(edit, attribution, seed=1)
        >>> control.meta["achieved"] == edit.meta["achieved"], control.digest() == edit.digest()
        (True, False)
    """
    name, scope = granularity or like.meta["granularity"], like.meta["scope"]
    attribution = attribution.narrow(name, like.meta["kinds"])
    space = attribution.space(name)
    taken = torch.zeros(space.n, dtype=torch.bool)
    taken[space.components(like)] = True
    own = space.factors(like)
    if taken.all():
        space = space.randomised(seed)
    segments, sizes = space.segments(scope), space.sizes()
    of_size = [taken[sizes == size] for size in torch.unique(sizes)]
    if all(own.all() or not own.any() for own in of_size):  # then only `like` itself has these sizes
        sizes = torch.zeros_like(sizes)
    chosen = _drawn(taken, sizes, segments, seed)
    meta = {"edit": "random", "sign": None, "scope": scope, "requested": like.meta["achieved"], "random_seed": seed}
    factors = like.factor if not like.factors else own[_order(len(chosen), seed)]
    return _from(attribution, space.intervention(chosen, factors, meta))


def _order(number: int, seed: int) -> Tensor:
    """Return a random order, in which components get the factors of those that they stand for."""
    return torch.randperm(number, generator=torch.Generator().manual_seed(seed))


def _drawn(taken: Tensor, sizes: Tensor, segments: list[tuple[int, int, int]], seed: int) -> Tensor:
    """Draw components (k,): in every group of the segments as many of each size as are taken there."""
    generator = torch.Generator().manual_seed(seed)
    chosen = [torch.zeros(0, dtype=torch.long)]
    for start, groups, size in segments:
        own, kinds = taken[start : start + groups * size].view(groups, size), sizes[start : start + size]
        order = torch.rand(groups, size, generator=generator).argsort(dim=1)
        for kind in torch.unique(kinds):
            of_kind = (kinds == kind)[order]  # in the drawn order
            among = of_kind & (of_kind.cumsum(1) <= (own & (kinds == kind)).sum(1, keepdim=True))
            chosen.append((order + torch.arange(groups)[:, None] * size + start)[among])
    return torch.cat(chosen)


def no_edit(attribution: Scored | None = None) -> Edit:
    """Make the edit that changes nothing."""
    return Edit({}, meta={**(attribution.meta if attribution else {}), "edit": "none", "requested": 0, "achieved": 0})


def _quota(ratio: float | None, count: int | None, scope: str, rounding: str = "ceil") -> Callable[[int], int]:
    """Return a function of a group's size: how many components to choose there.

    The ratio counts as written: 0.1 of 30 is 3, whatever binary floats say.
    """
    whole = ROUNDINGS[choose(rounding, ROUNDINGS, "rounding")]
    if (ratio is None) == (count is None):
        raise UserError("say how much to edit: either ratio or count, not both")
    if ratio is not None:
        if not 0 < ratio <= 1:
            raise UserError(f"ratio={ratio} is out of range: use a number above 0 and up to 1")
        return lambda size: whole(Fraction(str(ratio)) * size)
    if scope != "global":
        raise UserError(f"count={count} counts over the whole model: use scope=global, or a ratio with scope={scope}")
    if count is None or count < 1:
        raise UserError(f"count={count} is out of range: use 1 or more, or edit=none")
    return lambda size: count


def _from(attribution: Scored, edit: Edit) -> Edit:
    """Add the provenance of its scores to an edit."""
    return replace(edit, meta={**attribution.meta, **edit.meta})
