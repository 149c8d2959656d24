"""task=probe: what each layer knows at each timestep, read by light classifiers from frozen activations.

labelled images ─┬─ activations (network, and one with random weights) ─┬─ probe map
                 └─ features of an image encoder ───────────────────────┘
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cad_exp.models import image_encoders
from cad_exp.pipeline.stage import Chosen, Node
from cad_exp.pipeline.stages.activations import Activations
from cad_exp.pipeline.stages.image_features import ImageFeatures
from cad_exp.pipeline.stages.labelled_images import LabelledImages
from cad_exp.pipeline.stages.model import Model
from cad_exp.pipeline.stages.probes import ProbeMap
from cad_exp.representations import NOISY_LATENT
from cad_exp.representations.probes.registry import PROBES, probe_settings

Config = dict[str, Any]
BATCH = 100  # images of one part: what a kill may cost


@dataclass(frozen=True)
class Probe:
    """The graph of a run."""

    model: Model
    probes: ProbeMap

    def nodes(self) -> list[Node[Any]]:
        """Return the graph's ends: all else is what they depend on."""
        return [self.model, self.probes]


def build(config: Config) -> Probe:
    """Return the graph of a resolved config."""
    model, settings = Model.of(config["model"]), config["probe"]
    chosen = Chosen.of(PROBES, probe_settings(settings))
    pooling = PROBES.of(settings).wants
    images = labelled_images(config)
    trained = activations(config, model, images, pooling)
    untrained = activations(config, model, images, pooling, config["seed"] + 1) if settings["untrained"] else ()
    encoder = image_encoders.chosen(settings["image_encoder"], config["model"]["path"])
    encoded = tuple(ImageFeatures(part, pooling, encoder) for part in images) if encoder else ()
    how = (settings["seed"], settings["balanced"], settings["imbalance"], settings["fused"])
    return Probe(model, ProbeMap(trained, untrained, encoded, images, chosen, *how))


def labelled_images(config: Config) -> tuple[LabelledImages, ...]:
    """Return the images in parts."""
    source, number, size = source_of(config)
    return tuple(LabelledImages(source, i, min(BATCH, number - i), size) for i in range(0, number, BATCH))


def source_of(config: Config) -> tuple[Chosen, int, int]:
    """Return where the images come from, how many there are to be, and their width and height in pixels."""
    settings = config["images"]
    source, number, size = (
        LabelledImages.choice(settings, config["model"]["path"]),
        settings["number"],
        settings["size"],
    )
    total = LabelledImages(source, 0, 0, size).given().count()
    if total is not None:
        number = total if number is None else min(number, total)
    return source, number, size


def activations(
    config: Config, model: Model, images: tuple[LabelledImages, ...], pooling: str, untrained: int | None = None
) -> tuple[Activations, ...]:
    """Return the activations of every part of the images."""
    asked = config["activations"]
    places = tuple(dict.fromkeys([NOISY_LATENT, *asked["hookpoints"]]))  # every gain is over it
    times = tuple(asked["timesteps"])
    how = (places, times, asked["draws"], asked["seed"], asked["prompt"], pooling, config["runtime"]["batch_size"])
    return tuple(Activations(model, part, *how, untrained) for part in images)
