"""The whole config of a run, and the groups `tracking` and `runtime`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from cad_exp.config.schema.analysis import AnyAnalysis
from cad_exp.config.schema.attribution import AnyGranularity, AnyObjective, NoisyLatents
from cad_exp.config.schema.base import Group
from cad_exp.config.schema.edit import AnyEdit
from cad_exp.config.schema.estimators import AnyEstimator
from cad_exp.config.schema.evaluation import AnyJudge, Evaluation
from cad_exp.config.schema.model import AnyConcept, Model
from cad_exp.config.schema.prompts import AnyPrompts, AnyRetentionPrompts
from cad_exp.config.schema.representations import Activations, AnyImages, AnyProbe, Task
from cad_exp.config.schema.sparse import AnySae, AnyTokens
from cad_exp.config.schema.types import Batch, Bool, Choice, Device, Seed, Several, Str, Text, Whole


class Tracking(Group):
    """Where the results are mirrored."""

    mode: Annotated[str, Choice("offline", "online", "disabled")] | None = Field(
        description="Weights & Biases: into the run's folder, with your account, or not at all; null: WANDB_MODE."
    )
    project: Str | None = Field(description="The project; null: WANDB_PROJECT, else cad_exp.")
    entity: Str | None = Field(description="The account or team; null: WANDB_ENTITY.")
    group: Str | None = Field(description="The group of runs; null: WANDB_RUN_GROUP, else the sweep's name.")
    job_type: Str | None = Field(description="The kind of run; null: WANDB_JOB_TYPE, else concept and granularity.")
    name: Str | None = Field(description="The name of the run; null: WANDB_NAME, else the name of its folder.")
    notes: Str | None = Field(description="Notes; null: WANDB_NOTES.")
    tags: Annotated[tuple[str, ...], Several(Text())] = Field(description="Tags; null: WANDB_TAGS.")


class Runtime(Group):
    """Device, precision, threads."""

    device: Annotated[str, Device()] = Field(description="Where the model computes; auto takes the best there is.")
    precision: Annotated[str, Choice("auto", "fp32", "bf16", "fp16")] = Field(
        description="Precision of the model; auto is bf16 on CUDA, else fp32."
    )
    batch_size: Batch = Field(description="Noisy latents for each forward and backward pass.")
    cache: Str | None = Field(description="Folder of finished stages, shared by all runs; null: the run's own.")
    threads: Annotated[int, Whole(1, 4096)] | None = Field(description="CPU threads; null is PyTorch's choice.")
    score: Annotated[str, Choice("all", "chosen")] = Field(
        description="Which granularities are scored: all where that costs no further pass, or only the chosen one."
    )
    checkpointing: Bool = Field(description="Whether backward passes compute activations again, for less memory.")
    offload: Annotated[str, Choice("none", "model", "sequential")] = Field(
        description="Where text encoders and VAE wait on CUDA: on the GPU (none), on the CPU (model), or there layer "
        "by layer."
    )


class RunConfig(Group):
    """Everything that a run is told."""

    seed: Seed = Field(description="The seed of everything that has none of its own.")
    task: Task = Field(description="What the run asks.")
    model: Model = Field(description="The text-to-image model to look into.")
    concept: AnyConcept = Field(description="What to find in it.")
    granularity: AnyGranularity = Field(description="The kind of component that gets a score.")
    noisy_latents: NoisyLatents = Field(description="The noisy images at which the model is asked.")
    objective: AnyObjective = Field(description="What counts as showing the concept.")
    estimator: AnyEstimator = Field(description="How a component's score is computed.")
    edit: AnyEdit = Field(description="What to do with the components found.")
    prompts: AnyPrompts = Field(description="The prompts of the images that show the concept.")
    retention_prompts: AnyRetentionPrompts = Field(
        description="The prompts of the images that should stay as they are."
    )
    evaluation: Evaluation = Field(description="What to measure afterwards.")
    judge: AnyJudge = Field(description="Who says what the images show.")
    images: AnyImages = Field(description="The labelled images that probes and autoencoders learn from.")
    activations: Activations = Field(description="Where and when the network is looked at.")
    probe: AnyProbe = Field(description="The classifier that reads activations.")
    tokens: AnyTokens = Field(description="The activations that sparse autoencoders learn from.")
    sae: AnySae = Field(description="The sparse autoencoders.")
    analysis: AnyAnalysis = Field(description="One look at what a model represents.")
    tracking: Tracking = Field(description="Where the results are mirrored.")
    runtime: Runtime = Field(description="Device, precision, threads.")
