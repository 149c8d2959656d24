"""Objectives that look at the picture: what judges say of the image that a single prediction already implies.

At a noisy latent (x_t, t) the network's prediction implies clean latents x0; decoded, they are a picture that a CLIP or
a classifier can judge. Everything is differentiable, so one backward pass reaches the gates through judge and VAE.

Which prediction: the concept's own (guidance 1), or the guided one, eps(base) + s (eps(c) - eps(base)). Guided is where
the sampler heads, but costs a second pass, and on very noisy ones it leaves the VAE's range, where pixels are
clipped and
give no gradient: at t = 999 of `mini`, church, s = 3 clips 10 % of the pixels and CLIP finds less of a church in them
(0.41) than without guidance (0.46). So 1 is the default; the setting `guidance` says otherwise.

Late noisy latents of a concept's own trajectory show the concept already: there the base prompt's prediction gives the
same picture (`mini`, church: from t = 624 on), and J tells only what damages it. Noisy latents along the base prompt's
trajectories (`noisy_latents.guidance=0`) have no such end.
"""

from typing import Any

import torch
from torch import Tensor

from cad_exp.attribution.objectives.base import Objective, Predict
from cad_exp.data.noisy_latents import NoisyLatents
from cad_exp.models.pipeline import DiffusionModel, Progress
from cad_exp.utils.errors import UserError


class ImageObjective(Objective):
    """J = E score(decode(x0)), x0 being the clean latents of the edited model's prediction at the noisy latent.

    guidance: of the prediction, 1 is the concept's alone; both parts are the edited model's. judge: of
    cad_exp.evaluation.judges; kind, label: the concept's, as its config has them. UserError if unfit (`check`).
    """

    context = ("judge", "kind", "label")

    def __init__(
        self,
        model: DiffusionModel,
        latents: NoisyLatents,
        batch_size: int = 16,
        progress: Progress | None = None,
        ablation: str = "zero",
        weighting: str = "uniform",
        guidance: float = 1.0,
        judge: Any = None,
        kind: str | None = None,
        label: str | None = None,
    ):
        self.check({"judge": judge, "kind": kind, "label": label})
        super().__init__(model, latents, batch_size, progress, ablation, weighting)
        self.judge, self.guidance = judge.on(model.device), float(guidance)
        self.kind, self.label = kind, label

    @classmethod
    def check(cls, context: dict[str, Any]) -> None:
        """Raise UserError if there is no judge."""
        if context.get("judge") is None:
            raise UserError(
                f"objective {cls.name} needs a judge and this model has none: choose judge=..., or objective=erase"
            )

    def loss(self, batch: NoisyLatents, predict: Predict) -> Tensor:
        """Return the score (B,) of the pictures that the gated network's predictions imply."""
        prediction = predict(batch, self.concept)
        if self.guidance != 1:
            base = predict(batch, self.neutral)
            prediction = base + self.guidance * (prediction - base)
        return self.score(self.model.decode(self.model.predicted_x0(batch.x, batch.t, prediction)))

    def score(self, images: Tensor) -> Tensor:
        """Return what the judge says (B,) of images (B, 3, H, W) in 0..1; differentiable."""
        raise NotImplementedError


class ClipSimilarity(ImageObjective):
    """J = E cos(CLIP(decode(x0)), CLIP(c)), in -1..1: how much CLIP finds of the concept's prompt in the picture."""

    name, asks = "clip", ("clip",)

    def score(self, images: Tensor) -> Tensor:
        """Return the cosine (B,) in -1..1 of CLIP's embeddings of each image and the concept's prompt."""
        similarity: Tensor = self.judge.similarity(images, self.latents.prompt)
        return similarity


class JudgeLogit(ImageObjective):
    """J = E log p / (1 - p), p the classifier's probability of the concept's label in the decoded x0."""

    name, asks = "judge", ("logits",)

    @classmethod
    def check(cls, context: dict[str, Any]) -> None:
        """Raise UserError if there is no judge, or if it does not know the concept's label."""
        super().check(context)
        kind, label = context.get("kind"), context.get("label")
        if not kind or not label:
            raise UserError(
                "objective judge needs a label that the judge knows: set concept.kind and concept.label, or use "
                "objective=clip"
            )
        with torch.no_grad():
            context["judge"].log_odds(torch.zeros(1, 3, 8, 8), kind, label)  # it refuses what it does not know

    @classmethod
    def about(cls, context: dict[str, Any], prompt: str) -> dict[str, Any]:
        """Return the context with the kind and label that a prompt asks for."""
        kind, label = context["judge"].question(prompt)
        return context | {"kind": kind, "label": label}

    def score(self, images: Tensor) -> Tensor:
        """Return the log odds (B,) of the concept's label in each image."""
        log_odds: Tensor = self.judge.log_odds(images, self.kind, self.label)
        return log_odds
