"""Architectures and optimisers of sparse autoencoders by name. Nothing here imports torch."""

from cad_exp.utils.registry import Registry

_HOME = "cad_exp.representations.sae"

ARCHITECTURES = Registry(
    "autoencoder",
    {
        "topk": f"{_HOME}.architectures:PerToken",
        "batchtopk": f"{_HOME}.architectures:PerBatch",
        "matryoshka": f"{_HOME}.architectures:Matryoshka",
    },
)
OPTIMISERS = Registry(
    "optimiser",
    {
        "annealed": f"{_HOME}.optimisers:Annealed",
        "sign": f"{_HOME}.optimisers:ScheduleFreeSign",
        "adam": f"{_HOME}.optimisers:Adam",
    },
)
