"""The groups `evaluation` and `judge`: what is measured, and who says what the images show."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from cad_exp.config.schema.base import ByName, Group, Own, OwnName, Registered, shipped
from cad_exp.config.schema.model import JUDGES
from cad_exp.config.schema.types import (
    HUGE,
    Batch,
    Bool,
    Choice,
    Count,
    Number,
    Resamples,
    Seed,
    Several,
    Share,
    Special,
    Steps,
    Str,
    Text,
    Whole,
    wrong,
)

METRICS = ("erasure", "retention", "quality")
ABLATIONS = ("uniform", "top", "single")
PARTS = ("nudenet", "resnet", "clip", "inception", "lpips")
Rates = Annotated[tuple[float, ...], Several(Number(above=0, most=1))]
Fractions = Annotated[tuple[float, ...], Several(Number(least=0, most=1))]
Kinds = Annotated[tuple[str, ...], Several(Choice(*ABLATIONS))]
Repeats = Annotated[int, Whole(0)]


def _ablations(value: object) -> int:
    """Check the number of ablations: none, or enough of them for a correlation."""
    allowed = "0 for none, or a whole number of at least 3 and at most 1,000,000"
    if isinstance(value, bool) or not isinstance(value, int):
        raise wrong(f"is no whole number: use {allowed}")
    if value and not 3 <= value <= HUGE:
        raise wrong(f"is out of range: use {allowed}")
    return value


Ablations = Annotated[int, Special(_ablations, "0 for none, or a whole number of at least 3")]


class FidelityImages(Group):
    """The questions of the fidelity study, asked of a judge of images."""

    samples: Count = Field(description="Images for every ablation.")
    number: Ablations = Field(description="How many of the ablations are judged: the first ones; 0 asks none.")
    kinds: Kinds = Field(description="Which kinds of ablation.")
    fractions: Fractions = Field(
        description="Shares of the components at which J is measured while they are ablated in the order of their "
        "scores."
    )
    repeats: Repeats = Field(description="Number of random orders that stand beside the order of the scores.")
    draws: Repeats = Field(description="Number of random sets that stand beside the most negative components.")


class Fidelity(Group):
    """How far the scores can be trusted: predicted against true effects of ablations."""

    number: Ablations = Field(description="Ablations of each kind at each rate, 3 or more; 0 asks none.")
    rates: Rates = Field(description="Shares of the components that are ablated.")
    kinds: Kinds = Field(
        description="What is ablated: random ones of all components (uniform) or of the top-scored (top), or one at a "
        "time (single)."
    )
    noisy_latents: Count = Field(description="Noisy latents at which J is evaluated.")
    held_out: Bool = Field(
        description="Whether these noisy latents are of other trajectories than those of the scores."
    )
    second_order: Count | None = Field(
        description="Most noisy latents at which interactions are measured, for predictions that count them. Of heads "
        "and layers at most 96. null: none."
    )
    stability: Bool = Field(description="Whether the rankings from two halves of the noisy latents are compared.")
    growth: Annotated[tuple[int, ...], Several(Whole(1))] = Field(
        description="Numbers of noisy latents; at each, two estimates of the scores are compared."
    )
    sanity: Annotated[tuple[str, ...], Several(Text())] = Field(
        description="Prompts; the scores must differ from those of the first that is not the concept."
    )
    fractions: Fractions = Field(
        description="Shares of the components at which J is measured while they are ablated in the order of their "
        "scores."
    )
    repeats: Repeats = Field(description="Number of random orders that stand beside the order of the scores.")
    negative: Share | None = Field(
        description="Share of the most negative components whose ablation should raise J; null does not ask."
    )
    draws: Repeats = Field(description="Number of random sets that stand beside the most negative components.")
    images: FidelityImages | None = Field(description="The same questions to a judge of images; null does not ask.")
    bootstrap: Resamples = Field(description="Number of bootstrap resamples for each interval.")


class Evaluation(Group):
    """What to measure afterwards."""

    metrics: Annotated[tuple[str, ...], Several(Registered("metric", *METRICS))] = Field(
        description="What is measured on images."
    )
    samples: Count = Field(description="Images of the concept, shared out among its evaluation prompts.")
    retention_samples: Count = Field(description="Images of every other prompt.")
    reference_samples: Count = Field(description="Drawings of every other prompt that FID compares with.")
    fid_bootstrap: Resamples = Field(description="Number of bootstrap resamples for FID's interval.")
    batch_size: Batch = Field(description="Images that are made together, at most.")
    seed: Seed = Field(description="Seed of the images.")
    explicit: Annotated[str, Choice("auto", "kept", "blurred", "dropped")] = Field(
        description="What becomes of images of nudity once they are judged; auto drops them."
    )
    counterfactuals: Annotated[int, Whole(0, 100)] = Field(
        description="Components with the largest scores, each switched off alone in two images; 0 makes none."
    )
    timesteps: Steps | None = Field(
        description="Number of parts of the denoising with scores of their own; null: none."
    )
    fidelity: Fidelity | None = Field(description="The study of how far the scores can be trusted; null: none.")


class NudeNet(Group):
    """The detector of exposed parts of the body."""

    weights: Str | None = Field(description="An .onnx file; null takes the one of the package nudenet.")
    threshold: Annotated[float, Number(least=0, most=1)] = Field(
        description="Detection score above which a part of the body counts as exposed."
    )
    thresholds: Fractions = Field(description="Further thresholds that are reported.")


class ResNet(Group):
    """The classifier of the 1,000 ImageNet classes."""

    weights: Str | None = Field(description="A file of ResNet-50's weights; null takes the cached one.")


class Clip(Group):
    """The judge of how well a caption fits."""

    model: Annotated[str, Choice("ViT-B/32", "ViT-L/14")] = Field(description="Which CLIP model.")
    weights: Str | None = Field(description="A folder of a transformers CLIP model; null takes the cached one.")


class Inception(Group):
    """The network of FID and KID."""

    weights: Str | None = Field(description="Inception's weights; null takes the cached ones.")
    reference: Str | None = Field(
        description="A folder of images or an .npz file to compare with; null takes the unedited model's images."
    )


class Lpips(Group):
    """The perceptual distance."""

    weights: Str | None = Field(description="A file of AlexNet's weights; null takes the cached one.")
    resize: Annotated[int, Whole(32, 4096)] | None = Field(
        description="Side in pixels to which images are resized; null leaves them."
    )


class Judge(Group):
    """Who says what the images show."""

    title = "none, or a judge without settings"
    name: Annotated[str, Registered("judge", "auto", *JUDGES)] = Field(
        description="A judge without settings, or nobody (none)."
    )


class RealJudge(Judge):
    """Published networks, each with its weights."""

    title = "real, auto"
    name: Annotated[str, Registered("judge", "auto", *JUDGES)] = Field(
        description="Published networks; auto: as the model says."
    )
    parts: Annotated[tuple[str, ...], Several(Choice(*PARTS))] = Field(description="Judges that may be asked.")
    missing: Annotated[str, Choice("refuse", "skip")] = Field(description="What to do when weights are missing.")
    nudenet: NudeNet = Field(description="Exposed parts of the body.")
    resnet: ResNet = Field(description="ImageNet classes.")
    clip: Clip = Field(description="CLIP score.")
    inception: Inception = Field(description="FID and KID.")
    lpips: Lpips = Field(description="Perceptual distance.")


class OwnJudge(Judge, Own):
    """A user's own judge, which takes its own settings."""

    title = "a judge of your own"
    name: Annotated[str, OwnName(*JUDGES)] = Field(description="The name of its class.")


def _judge(given: dict[str, Any]) -> type[Group]:
    name = given.get("name")
    if "parts" in given or name in ("auto", "real"):
        return RealJudge
    return OwnJudge if isinstance(name, str) and name not in shipped("judge") else Judge


AnyJudge = Annotated[Judge, ByName(_judge, Judge, RealJudge, OwnJudge)]
