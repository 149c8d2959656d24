"""A granularity: another way to cut output projections into components."""

from collections.abc import Iterable

from cad_exp.interventions.spaces.granularities import Granularity
from cad_exp.interventions.spaces.sites import Site


class Slice(Granularity):
    """An equal part of the columns of an output projection; each projection has `number` of them."""

    name = "slice"

    def __init__(self, kinds: Iterable[str] | None = None, number: int = 4):
        super().__init__(kinds)
        self.number = number

    def parts(self, site: Site) -> int:
        """Return the number of components in one site."""
        return self.number if site.shape[1] % self.number == 0 else 1
