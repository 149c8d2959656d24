"""Analyses by name: what a model represents, by works that stand beside Revelio. Nothing here imports torch."""

from typing import Any

from cad_exp.utils.registry import RESERVED, Entry, Registry

_HOME = "cad_exp.evaluation.analyses"
SEED = "seed"  # a setting of every analysis, which the task hands on

ANALYSES = Registry(
    "analysis",
    {
        "class_overlap": Entry(f"{_HOME}.class_overlap:ClassOverlap", facts={"reads_activations": None}),
        "image_text_score": Entry(f"{_HOME}.image_text_score:ImageTextScore", facts={"reads_activations": None}),
        "segmentation": Entry(f"{_HOME}.segmentation:Segmentation", facts={"reads_activations": None}),
    },
)


def analysis_settings(analysis: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of the class that the group `analysis` of a config chooses: its name and its own."""
    return {key: value for key, value in analysis.items() if key in RESERVED or key != SEED}
