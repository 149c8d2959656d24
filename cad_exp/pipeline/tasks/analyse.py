"""task=analyse: one look at what a model represents, by a work that stands beside Revelio.

labelled images ── activations (where the analysis reads them; of a network with random weights too) ── analysis
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cad_exp.evaluation.analyses import ANALYSES, IMAGE_ENCODER, SEED, analysis_settings
from cad_exp.models import image_encoders
from cad_exp.pipeline.stage import Chosen, Node
from cad_exp.pipeline.stages.activations import Activations
from cad_exp.pipeline.stages.analysis import Analysis
from cad_exp.pipeline.stages.model import Model
from cad_exp.pipeline.tasks.probe import activations, labelled_images
from cad_exp.utils.registry import chosen

Config = dict[str, Any]


@dataclass(frozen=True)
class Analyse:
    """The graph of a run."""

    model: Model
    analysis: Analysis

    def nodes(self) -> list[Node[Any]]:
        """Return the graph's ends: all else is what they depend on."""
        return [self.model, self.analysis]


def build(config: Config) -> Analyse:
    """Return the graph of a resolved config."""
    model, settings, path = Model.of(config["model"]), config["analysis"], config["model"]["path"]
    choice, name = Chosen.of(ANALYSES, analysis_settings(settings)), chosen(settings)
    pooling = ANALYSES.fact(name, "reads_activations")
    images, times = labelled_images(config), tuple(config["activations"]["timesteps"])
    trained = activations(config, model, images, pooling) if pooling else ()
    untrained: tuple[Activations, ...] = ()
    if pooling and ANALYSES.fact(name, "reads_untrained"):
        untrained = activations(config, model, images, pooling, config["seed"] + 1)
    encoder = image_encoders.chosen(settings.get(IMAGE_ENCODER), path)
    how = (choice, times, settings[SEED], config["runtime"]["batch_size"], encoder)
    return Analyse(model, Analysis(model, images, trained, untrained, *how))
