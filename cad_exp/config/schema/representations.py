"""The groups `task`, `images`, `activations` and `probe`: what a run asks, and what is read from activations."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from cad_exp.config.schema.base import Group, Own, OwnName, by_name
from cad_exp.config.schema.types import Anything, Bool, Choice, Count, Number, Positive, Seed, Several, Str, Text, Whole

TASKS = ("attribute", "probe", "sae", "analyse")
PROBES = ("linear", "attention", "mlp", "diffc")
TRAINED = PROBES[1:]
SOURCES = ("world", "folder", "torchvision", "hub")
HowMany = Annotated[int, Whole(10, 10_000_000)]
Size = Annotated[int, Whole(8, 4096)]


class Task(Group):
    """What a run asks."""

    name: Annotated[str, Choice(*TASKS)] = Field(
        description="Which components make a concept, what layers know, their sparse features, or one analysis."
    )


class Images(Group):
    """Labelled images."""

    title = ", ".join(SOURCES[1:])
    name: Annotated[str, Choice(*SOURCES)] = Field(description="Where they come from.")
    number: HowMany | None = Field(description="Number of images; null takes all.")
    size: Size = Field(description="Width and height in pixels.")


class World(Images):
    """Drawings of a world that the model describes itself."""

    title = "world"
    number: HowMany = Field(description="Number of drawings.")
    seed: Seed = Field(description="Seed of the drawings.")


class Folder(Images):
    """A folder with one sub-folder for each class."""

    title = "folder"
    path: Str = Field(description="The folder.")


class Torchvision(Images):
    """A data set of torchvision."""

    title = "torchvision"
    dataset: Str = Field(description="The name of its class in torchvision.datasets.")
    path: Str = Field(description="The folder of its files.")
    split: Str | None = Field(
        description="The part of the data set, by its own name (such as train); null where it has none."
    )
    download: Bool = Field(description="Whether the data set is downloaded into the folder first.")


class Hub(Images):
    """A data set of the hub."""

    title = "hub"
    dataset: Str = Field(description="The id of the data set, owner/name.")
    split: Str = Field(description="The part of the data set, such as train.")
    image: Str = Field(description="The column of images.")
    label: Str = Field(description="The column of classes.")


class OwnImages(Images, Own):
    """A user's own source of images, which takes its own settings."""

    title = "a source of your own"
    name: Annotated[str, OwnName(*SOURCES)] = Field(description="The name of its class.")


AnyImages = Annotated[
    World | Folder | Torchvision | Hub | OwnImages,
    by_name({World: ("world",), Folder: ("folder",), Torchvision: ("torchvision",), Hub: ("hub",)}, OwnImages),
]


class Activations(Group):
    """Where and when the network is looked at."""

    hookpoints: Annotated[tuple[str, ...], Several(Text(), least=1)] = Field(
        description="Places that are read: kinds, names of modules, or patterns (`python -m cad_exp hookpoints`)."
    )
    timesteps: Annotated[tuple[int, ...], Several(Whole(0, 999), least=1)] = Field(
        description="Timesteps to which the images are noised: 0 is no noise, 999 nearly all."
    )
    draws: Count = Field(description="How often noise is drawn for each image and timestep.")
    prompt: Anything = Field(description="The prompt of all images; `caption` takes each image's own.")
    seed: Seed = Field(description="Seed of the noise.")


class Probe(Group):
    """The classifier that reads activations, and what it is held against."""

    title = "linear"
    name: Annotated[str, Choice(*PROBES)] = Field(description="Its kind.")
    untrained: Bool = Field(description="Whether a network with random weights is read as well.")
    image_encoder: Str | None = Field(
        description="A folder or hub id of a CLIP whose image tower is read as well; auto: the model's own; null: none."
    )
    fused: Annotated[int, Whole(1, 100)] | None = Field(
        description="Number of best layers and timesteps that a linear probe reads together; null: none."
    )
    balanced: Bool = Field(description="Whether every class weighs alike in training, however many images it has.")
    imbalance: Annotated[int, Whole(1, 10_000)] = Field(
        description="Every second class keeps 1 of so many training images; 1 keeps all."
    )
    seed: Seed = Field(description="Seed of the split into training, validation and test images, and of the fit.")


class TrainedProbe(Probe):
    """A small network, trained by AdamW until the validation images stop it."""

    title = "attention"
    name: Annotated[str, Choice(*TRAINED)] = Field(description="Its kind.")
    rate: Positive = Field(description="Learning rate.")
    epochs: Count = Field(description="Passes over the training images, at most.")
    patience: Count = Field(description="Epochs without progress on the validation images, after which it stops.")
    batch: Annotated[int, Whole(2, 65_536)] = Field(description="Images of a training step.")
    decays: Annotated[tuple[float, ...], Several(Number(least=0, most=1000), least=1)] = Field(
        description="Weight decays, among which the validation images choose."
    )


class WideProbe(TrainedProbe):
    """A small network of a given width."""

    title = "mlp, diffc"
    name: Annotated[str, Choice("mlp", "diffc")] = Field(description="Its kind.")
    width: Annotated[int, Whole(1, 65_536)] = Field(description="Features of its hidden layers.")


class OwnProbe(Probe, Own):
    """A user's own probe, which takes its own settings."""

    title = "a probe of your own"
    name: Annotated[str, OwnName(*PROBES)] = Field(description="The name of its class.")


AnyProbe = Annotated[
    Probe | TrainedProbe | WideProbe | OwnProbe,
    by_name({Probe: ("linear",), TrainedProbe: ("attention",), WideProbe: ("mlp", "diffc")}, OwnProbe),
]
