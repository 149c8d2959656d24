"""Mean differences as a granularity: at each place the one direction in which the concept moves the mean activation.

The simple rival of latents and principal components, called difference in means where language models are steered
(Belrose, 2023; Arditi et al., arXiv 2406.11717). It needs no autoencoders.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from cad_exp.data.noisy_latents import NoisyLatents, sample_trajectory
from cad_exp.interventions.encoder import Encoder
from cad_exp.interventions.gating import Tap, watched
from cad_exp.interventions.networks import Networks
from cad_exp.interventions.spaces.base import ComponentSpace, Scale
from cad_exp.interventions.spaces.directions import Directions, Place
from cad_exp.interventions.spaces.granularities import Granularity
from cad_exp.interventions.spaces.sites import Site
from cad_exp.models.pipeline import DiffusionModel
from cad_exp.representations.hookpoints import choose_hookpoints, prompt_attentions
from cad_exp.utils.errors import UserError

BATCH = 16  # noisy latents in one pass


class MeanDifference(Granularity):
    """One unit vector d a place: mean activation under the concept's prompt, minus that under the base prompt.

    The means are over all positions of the noisy latents of `samples` guided trajectories of the concept's prompt, the
    same for both prompts. A component's value is ReLU(<h - m, d>), with m the base prompt's mean: at a factor of 0 no
    activation has more of d than the base prompt gives on average, and those that have less stay as they are.

    hookpoints: the places; None: the attentions that read the prompt. seed: of the trajectories.
    """

    name = "mean_difference"
    default_kinds = allowed_kinds = ("direction",)
    optional_kinds = ()
    scale, of_weights, has_values, from_sites = Scale.FEW, False, True, False

    def __init__(
        self,
        kinds: Iterable[str] | None = None,
        hookpoints: Sequence[str] | None = None,
        prompt: str = "",
        base_prompt: str = "",
        samples: int = 16,
        steps: int = 12,
        guidance: float = 3.0,
        seed: int = 0,
    ):
        super().__init__(kinds)
        first = 1_000_000 * seed  # as the noisy latents of a run count their seeds
        self.hookpoints, self.prompts, self.seeds = hookpoints, (prompt, base_prompt), range(first, first + samples)
        self.steps, self.guidance = steps, guidance

    def of_model(self, model: DiffusionModel, sites: Sequence[Site]) -> ComponentSpace:
        """Return the space of the directions in a model.

        Raises:
            UserError: a place that the model does not have, or that both prompts leave with the same mean.
        """
        points = prompt_attentions(model) if self.hookpoints is None else choose_hookpoints(model, self.hookpoints)
        taps = [each.tap for each in points if each.tap is not None]
        if len(taps) < len(points):
            raise UserError("granularity.hookpoints holds the noisy latent, which knows nothing of the prompt")
        latents = sample_trajectory(model, *self.prompts, list(self.seeds), self.steps, self.guidance)
        concept, base = (_means(model, latents, taps, prompt) for prompt in self.prompts)
        return Directions([_place(tap, concept[tap], base[tap]) for tap in taps], self.name)


def _place(tap: Tap, concept: Tensor, base: Tensor) -> Place:
    difference = concept - base
    if not float(difference.norm()) > 0:
        raise UserError(f"'{tap.module}' has the same mean activation under both prompts: leave it out of the places")
    vectors = (difference / difference.norm())[None]
    return Place(tap, vectors, Encoder(vectors, torch.zeros(1), base))


@torch.no_grad()
def _means(model: DiffusionModel, latents: NoisyLatents, taps: Sequence[Tap], prompt: str) -> dict[Tap, Tensor]:
    """Return the mean activation (features,) fp32 of each tap under a prompt, on the CPU."""
    sums = {tap: torch.zeros((), dtype=torch.float64) for tap in taps}
    condition = model.encode([prompt])

    def add(tap: Tap, activation: Tensor) -> None:
        sums[tap] = sums[tap] + activation.flatten(1, -2).mean(1).sum(0).double().cpu()

    with watched(Networks.of(model), taps, add):
        for batch in latents.batches(BATCH):
            model.predict(batch.x, batch.t, condition)
    return {tap: (total / len(latents)).float() for tap, total in sums.items()}
