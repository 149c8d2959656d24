"""Granularities by name: what one component is. Nothing here imports torch."""

from cad_exp.utils.registry import Registry

_HOME = "cad_exp.interventions.spaces.granularities"
OWN = ("weight", "neuron", "head", "layer")  # of this package; one estimate of an additive estimator serves all four

GRANULARITIES = Registry("granularity", {name: f"{_HOME}:{name.title()}" for name in OWN})
