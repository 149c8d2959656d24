"""task=analyse: one look at what a model represents, by a work that stands beside Revelio.

labelled images ── activations (where the analysis reads them) ── analysis
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cad_exp.evaluation.analyses import ANALYSES, SEED, analysis_settings
from cad_exp.pipeline.stage import Chosen, Node
from cad_exp.pipeline.stages.activations import Activations
from cad_exp.pipeline.stages.analysis import Analysis
from cad_exp.pipeline.stages.labelled_images import LabelledImages
from cad_exp.pipeline.stages.model import Model
from cad_exp.pipeline.tasks.probe import labelled_images
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
    model, settings, asked = Model.of(config["model"]), config["analysis"], config["activations"]
    choice = Chosen.of(ANALYSES, analysis_settings(settings))
    pooling = ANALYSES.fact(chosen(settings), "reads_activations")
    images, times = labelled_images(config), tuple(asked["timesteps"])
    batch_size = config["runtime"]["batch_size"]
    found = _activations(asked, model, images, pooling, batch_size) if pooling else ()
    return Analyse(model, Analysis(model, images, found, choice, times, settings[SEED], batch_size))


def _activations(
    asked: Config, model: Model, images: tuple[LabelledImages, ...], pooling: str, batch_size: int
) -> tuple[Activations, ...]:
    """Return the activations of every part of the images."""
    places, times = tuple(dict.fromkeys(asked["hookpoints"])), tuple(asked["timesteps"])
    how = (places, times, asked["draws"], asked["seed"], asked["prompt"], pooling, batch_size)
    return tuple(Activations(model, part, *how) for part in images)
