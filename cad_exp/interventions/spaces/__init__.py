"""Component spaces: what gates mean. Columns and entries of output projections, and directions of an activation."""

from cad_exp.interventions.granularity_registry import GRANULARITIES, OWN
from cad_exp.interventions.spaces.base import ComponentSpace, Gating, RowGating, Scale
from cad_exp.interventions.spaces.directions import RESTORED, Directions
from cad_exp.interventions.spaces.granularities import Granularity, Weight, make_granularity
from cad_exp.interventions.spaces.sites import (
    CROSS,
    FF,
    FF_IN,
    JOINT,
    KINDS,
    OPTIONAL,
    SELF,
    TEXT,
    Site,
    find_sites,
)
from cad_exp.interventions.spaces.text_sites import text_sites

__all__ = [
    "CROSS",
    "FF",
    "FF_IN",
    "GRANULARITIES",
    "JOINT",
    "KINDS",
    "OPTIONAL",
    "OWN",
    "RESTORED",
    "SELF",
    "TEXT",
    "ComponentSpace",
    "Directions",
    "Gating",
    "Granularity",
    "RowGating",
    "Scale",
    "Site",
    "Weight",
    "find_sites",
    "make_granularity",
    "text_sites",
]
