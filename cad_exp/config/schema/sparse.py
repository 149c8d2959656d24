"""The groups `tokens` and `sae`: sparse autoencoders, and the activations that they learn from."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import Field

from cad_exp.config.schema.base import Group, Own, OwnName, Registered, by_name
from cad_exp.config.schema.types import (
    Anything,
    Batch,
    Bool,
    Choice,
    Count,
    Guidance,
    Kind,
    Number,
    Positive,
    Seed,
    Several,
    Steps,
    Text,
    Whole,
    unknown,
    wrong,
)

WALKS, NOISED = "trajectories", "noised"
ARCHITECTURES = ("topk", "batchtopk", "matryoshka")
OPTIMISERS = ("annealed", "sign", "adam")
MOST = 1_000_000_000  # tokens


class Positions(Kind):
    """How many positions are read: a number, all, or the mean of all."""

    words = ("mean", "all")

    def check(self, value: object) -> Any:
        """Return the number or word; raise `wrong` for anything else."""
        return Whole(1).check(value) if not isinstance(value, str) else Choice(*self.words).check(value)

    def allowed(self) -> str:
        """Return what the setting takes."""
        return f"{Whole(1).allowed()}, {' or '.join(self.words)}"


class Width(Kind):
    """How many latents: a number, a multiple of the features, or auto."""

    def check(self, value: object) -> Any:
        """Return the number or text; raise `wrong` for anything else."""
        if not isinstance(value, str) or value.isdigit():
            return Whole(2).check(int(value) if isinstance(value, str) else value)
        if value != "auto" and not re.fullmatch(r"[1-9]\d{0,3}x", value):
            raise wrong(unknown(value, ("auto", "4x")))
        return value

    def allowed(self) -> str:
        """Return what the setting takes."""
        return f"{Whole(2).allowed()}, a multiple of the features such as 4x, or auto"


class Tokens(Group):
    """Activations at single positions."""

    name: Annotated[str, Choice(WALKS, NOISED)] = Field(description="Where they are taken.")
    hookpoints: Annotated[tuple[str, ...], Several(Text(), least=1)] = Field(
        description="Places that are read: kinds, names of modules, or patterns; auto takes one place in the middle."
    )
    positions: Annotated[int | str, Positions()] = Field(
        description="Positions of the image that are read at each step: so many at random, their mean, or all."
    )
    seed: Seed = Field(description="Seed of the noise and of the positions.")


class Walks(Tokens):
    """Tokens on guided trajectories of the images' captions."""

    title = WALKS
    steps: Steps = Field(description="Steps of each trajectory.")
    guidance: Guidance = Field(description="Guidance of the trajectories.")
    base_prompt: Anything = Field(description="The base prompt of the guidance; empty is no prompt at all.")


class Noised(Tokens):
    """Tokens of noised images."""

    title = NOISED
    timesteps: Annotated[tuple[int, ...], Several(Whole(0, 999), least=1)] = Field(
        description="Timesteps to which the images are noised: 0 is no noise, 999 nearly all."
    )
    draws: Count = Field(description="How often noise is drawn for each image and timestep.")
    prompt: Anything = Field(description="The prompt of all images; `caption` takes each image's own.")


AnyTokens = Annotated[Walks | Noised, by_name({Walks: (WALKS,), Noised: (NOISED,)}, Walks)]


class Sae(Group):
    """Sparse autoencoders and their training."""

    title = "topk, batchtopk"
    name: Annotated[str, Choice(*ARCHITECTURES)] = Field(description="The architecture.")
    k: Annotated[tuple[int, ...], Several(Whole(1, 65_536), least=1)] = Field(
        description="Latents that act on a token; several train one autoencoder each."
    )
    width: Annotated[tuple[Any, ...], Several(Width(), least=1)] = Field(
        description="Latents of the dictionary; several train one autoencoder each."
    )
    seeds: Annotated[int, Whole(1, 100)] = Field(description="How many autoencoders, which differ in their start.")
    seed: Seed = Field(description="Seed of the first of them.")
    tokens: Annotated[int, Whole(1, MOST)] = Field(description="Tokens that each autoencoder sees.")
    batch_size: Batch = Field(description="Tokens of a batch.")
    optimiser: Annotated[str, Registered("optimiser", *OPTIMISERS)] = Field(
        description="How weights are trained: Adam whose rate falls to 0 (annealed), sign descent (sign), or Adam."
    )
    lr: Positive | None = Field(description="Learning rate; null: the smaller, the wider the dictionary.")
    warmup: Annotated[int, Whole(0)] = Field(
        description="Training steps in which the learning rate rises to its full value."
    )
    aux: Annotated[float, Number(least=0, most=1000)] = Field(
        description="Weight of AuxK, by which dead latents learn; 0 leaves it out."
    )
    dead_after: Annotated[int, Whole(1, MOST)] = Field(
        description="A latent that did not act on so many tokens in a row counts as dead."
    )
    controls: Bool = Field(description="Whether simpler dictionaries (controls) are measured beside it.")
    pages: Annotated[int, Whole(0, 1000)] = Field(description="Latents that get a page each, in the folder latents/.")


class Matryoshka(Sae):
    """Nested dictionaries."""

    title = "matryoshka"
    shares: Annotated[tuple[float, ...], Several(Number(above=0, most=1), least=1)] = Field(
        description="Shares of the latents, rising to 1: the first so many must reconstruct by themselves."
    )


class OwnSae(Sae, Own):
    """A user's own architecture, which takes its own settings."""

    title = "an architecture of your own"
    name: Annotated[str, OwnName(*ARCHITECTURES)] = Field(description="The name of its class.")


AnySae = Annotated[
    Sae | Matryoshka | OwnSae,
    by_name({Sae: ("topk", "batchtopk"), Matryoshka: ("matryoshka",)}, OwnSae),
]
