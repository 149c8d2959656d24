"""task=sae: sparse features of activations, beside the dictionaries that they must beat.

labelled images ── tokens (training, validation and test images apart) ── autoencoders ── features
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cad_exp.config.schema.sparse import Sae as Settings
from cad_exp.pipeline.stage import Chosen, Node
from cad_exp.pipeline.stages.autoencoders import Everywhere, Recipe, plans
from cad_exp.pipeline.stages.features import Features
from cad_exp.pipeline.stages.labelled_images import LabelledImages
from cad_exp.pipeline.stages.model import Model
from cad_exp.pipeline.stages.tokens import AnyTokens, NoisedTokens, WalkedTokens
from cad_exp.pipeline.tasks.probe import source_of
from cad_exp.representations.sae.registries import ARCHITECTURES, OPTIMISERS

Config = dict[str, Any]
BATCH = 50  # images of one shard: what a kill may cost
COMMON = frozenset(Settings.model_fields) - {"name"}  # what every architecture has: all else is the class's own
SHARES = (0.7, 0.1)  # of the images, for training and for choices; the rest is for what is reported


@dataclass(frozen=True)
class Sae:
    """The graph of a run."""

    model: Model
    autoencoders: Everywhere
    features: Features

    def nodes(self) -> list[Node[Any]]:
        """Return the graph's ends: all else is what they depend on."""
        return [self.model, self.features]


def build(config: Config) -> Sae:
    """Return the graph of a resolved config."""
    model, settings = Model.of(config["model"]), config["sae"]
    train, choice, test = (tokens(config, model, images) for images in labelled_images(config))
    architecture = Chosen.of(ARCHITECTURES, {key: settings[key] for key in settings if key not in COMMON})
    rates = {key: settings[key] for key in ("lr", "warmup")}
    optimiser = Chosen.of(OPTIMISERS, {"name": settings["optimiser"], **rates})
    keys = ("tokens", "batch_size", "aux", "dead_after", "seed")
    recipe = Recipe(**{key: settings[key] for key in keys})
    seeds = range(settings["seed"], settings["seed"] + settings["seeds"])
    asked = tuple(plans(settings["k"], settings["width"], seeds, settings["controls"]))
    trained = Everywhere(train, architecture, optimiser, recipe, asked)
    return Sae(model, trained, Features(trained, choice, test, settings["controls"], settings["seed"]))


def labelled_images(config: Config) -> tuple[tuple[LabelledImages, ...], ...]:
    """Return the images for training, for choices and for what is reported, each in parts."""
    source, number, size = source_of(config)
    first, second = round(number * SHARES[0]), round(number * (SHARES[0] + SHARES[1]))
    cuts = ((0, first), (first, second), (second, number))
    return tuple(
        tuple(LabelledImages(source, i, min(BATCH, end - i), size) for i in range(start, end, BATCH))
        for start, end in cuts
    )


def tokens(config: Config, model: Model, images: tuple[LabelledImages, ...]) -> tuple[AnyTokens, ...]:
    """Return the tokens of every part of the images."""
    asked = config["tokens"]
    places = (tuple(asked["hookpoints"]), asked["positions"], asked["seed"])
    if asked["name"] == "trajectories":
        how = (asked["steps"], asked["guidance"], asked["base_prompt"])
        return tuple(WalkedTokens(model, part, *places, *how) for part in images)
    times, batch_size = tuple(asked["timesteps"]), config["runtime"]["batch_size"]
    return tuple(
        NoisedTokens(model, part, *places, times, asked["draws"], asked["prompt"], batch_size) for part in images
    )
