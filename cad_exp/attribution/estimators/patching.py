"""Activation patching: what J loses when a component sees the base prompt, or gains when it alone sees the concept's.

Causal tracing of language models (Meng et al., arXiv 2202.05262), of text-to-image models (Basu et al., arXiv
2310.13730). A component's activation is what enters its columns of the output projection, at the same noisy latent and
token.
"""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from cad_exp.attribution.estimators.base import Scores, Watch
from cad_exp.attribution.estimators.leave_one_out import LeaveOneOut
from cad_exp.attribution.game import Game
from cad_exp.attribution.objectives.base import Objective, Predict
from cad_exp.data.noisy_latents import NoisyLatents
from cad_exp.interventions.ablation import Ablation
from cad_exp.models.families.condition import Condition
from cad_exp.utils.errors import UserError, choose

DIRECTIONS = ("noising", "denoising")


class ActivationPatching(LeaveOneOut):
    """The effect of one component's activation, swapped between the concept's run and the base prompt's.

    noising    J(concept's run) - J(concept's run, the component's activation from the base run): is it necessary?
    denoising  J(base run, the component's activation from the concept's run) - J(base run): is it sufficient?
    first_order: attribution patching, the same by one gradient at the run that is patched (Nanda 2023; Syed et al.,
    arXiv 2310.10348). The objective's own `ablation` plays no part: activations are always those of the other prompt.
    Raises UserError for an unknown direction, for denoising with a contrast, and for its gradient where J has none.
    """

    name = "activation_patching"

    def __init__(self, direction: str = "noising", first_order: bool = False, block: int = 256):
        super().__init__(block)
        self.direction = choose(direction, DIRECTIONS, "direction of activation_patching")
        self.first_order = bool(first_order)

    def _estimate(self, game: Game, watch: Watch) -> Scores:
        facts = {"direction": self.direction, "first_order": self.first_order, "ablation": "resample"}
        if self.direction == "noising":
            # A gate of 0 swaps the activation in.
            scores = self._losses(Game(game.objective.with_ablation("resample"), game.space), watch)
            return replace(scores, facts=scores.facts | facts)
        if self.first_order and game.objective.flat_at_base:
            raise UserError(
                f"objective {game.objective.name} is flat at the base prompt's run, so first_order=true sees nothing "
                "there: use objective=projection, or first_order=false"
            )
        run = Game(BaseRun(game.objective), game.space)
        scores = self._losses(run, watch)
        base = run.intact if scores.intact is None else scores.intact
        facts |= {"base_run": base, "total_effect": game.intact - base}
        return Scores(-scores.values, scores.errors, scores.facts | facts, game.intact)

    def _losses(self, run: Game, watch: Watch) -> Scores:
        """Return J(run) - J(run, one component swapped), (n,) fp32, exactly or by the gradient; with J(run)."""
        if not self.first_order:
            return super()._estimate(run, watch)
        value, gradient = watch.of(run, 1).value_and_gradient()
        return Scores(gradient, facts={"passes": 1}, intact=value)


class BaseRun(Objective):
    """J with the base prompt's run in the concept's place; a gate of 0 gives a component the concept's activation.

    What the objective itself predicts under the base prompt, to compare with, stays unpatched. UserError for a
    contrast: its retained prompts have runs and activations of their own.
    """

    def __init__(self, of: Objective):
        if not of.one_prompt:
            raise UserError(
                f"direction denoising is not for objective {of.name}: use direction=noising or another objective"
            )
        self.name, self.of, self.flat_at_base = of.name, of, of.flat_at_base
        self.model, self.latents, self.batch_size, self.progress = of.model, of.latents, of.batch_size, of.progress
        self.concept, self.neutral, self.weighting = of.concept, of.neutral, of.weighting
        swapped = {"concept": of.neutral, "neutral": of.concept}
        self.ablation = Ablation("resample", of.model, of.latents, of.batch_size, **swapped)

    def loss(self, batch: NoisyLatents, predict: Predict) -> Tensor:
        """Return the objective's own loss (B,), with the two prompts' predictions swapped."""

        def swapped(batch: NoisyLatents, condition: Condition) -> Tensor:
            if condition is self.concept:
                return predict(batch, self.neutral)
            if batch.base is not None:
                return batch.base
            return self.model.predict(batch.x, batch.t, condition)

        return self.of.loss(batch, swapped)
