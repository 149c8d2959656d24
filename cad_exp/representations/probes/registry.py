"""Probes by name. Nothing here imports torch."""

from typing import Any

from cad_exp.utils.registry import RESERVED, Entry, Registry

_HOME = "cad_exp.representations.probes"
# settings of the group `probe` that say what is read and beside what, and are not the classifier's own
COMMON = ("untrained", "image_encoder", "fused", "balanced", "imbalance", "seed")

PROBES = Registry(
    "probe",
    {
        "linear": Entry(f"{_HOME}.linear:LinearProbe", facts={"wants": "mean"}),
        "attention": Entry(f"{_HOME}.attention:AttentionProbe", facts={"wants": "grid"}),
        "mlp": Entry(f"{_HOME}.mlp:MlpProbe", facts={"wants": "mean"}),
        "diffc": Entry(f"{_HOME}.diffc:DiffCProbe", facts={"wants": "grid"}),
    },
)


def probe_settings(probe: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of the classifier that the group `probe` of a config chooses: its name and its own."""
    return {key: value for key, value in probe.items() if key in RESERVED or key not in COMMON}
