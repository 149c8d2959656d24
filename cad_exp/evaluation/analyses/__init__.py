"""Analyses by name: what a model represents, by works that stand beside Revelio. Nothing here imports torch."""

from typing import Any

from cad_exp.utils.registry import Entry, Registry

_HOME = "cad_exp.evaluation.analyses"
SEED, IMAGE_ENCODER = "seed", "image_encoder"  # settings that the task hands on
_NONE: dict[str, Any] = {"reads_activations": None, "reads_untrained": False}
_FEATURES = {"reads_activations": "mean", "reads_untrained": True}

ANALYSES = Registry(
    "analysis",
    {
        "class_overlap": Entry(f"{_HOME}.class_overlap:ClassOverlap", facts=_NONE),
        "cka": Entry(f"{_HOME}.cka:LayerSimilarity", facts=_FEATURES),
        "prototypes": Entry(f"{_HOME}.prototypes:SinkhornPrototypes", facts=_FEATURES),
        "zero_shot": Entry(f"{_HOME}.zero_shot:ZeroShot", facts=_FEATURES),
        "image_text_score": Entry(f"{_HOME}.image_text_score:ImageTextScore", facts=_NONE),
        "prompt_directions": Entry(f"{_HOME}.prompt_directions:PromptDirections", facts=_NONE),
        "segmentation": Entry(f"{_HOME}.segmentation:Segmentation", facts=_NONE),
    },
)


def analysis_settings(analysis: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of the class that the group `analysis` of a config chooses: its name and its own."""
    return {key: value for key, value in analysis.items() if key not in (SEED, IMAGE_ENCODER)}
