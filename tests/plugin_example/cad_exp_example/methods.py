"""Four methods, one of each kind: by scores, by new weights, by hooks while the model runs, and by gates."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch

from cad_exp.attribution.gates.task import Task
from cad_exp.interventions.edit import Edit
from cad_exp.interventions.selection import Scored, select
from cad_exp.models.pipeline import DiffusionModel

WHERE = "mid_block"


class Loudest:
    """Switch off the components with the largest scores, whatever their sign."""

    @staticmethod
    def select(attribution: Scored, granularity: str, seed: int, budget: dict[str, Any]) -> Edit:
        scores = {name: values.abs() for name, values in attribution.scores.items()}
        return select(replace(attribution, scores=scores), granularity, "positive", **budget)


def shrink(model: DiffusionModel, by: float = 0.5) -> Edit:
    """Make the values of every cross-attention smaller."""
    names = [name for name, _ in model.denoiser.named_parameters() if name.endswith("attn2.to_v.weight")]
    return Edit({}, replaced={name: model.denoiser.get_parameter(name).detach().cpu() * by for name in names})


class Steer:
    """Take the concept's direction out of what the middle block returns."""

    @staticmethod
    @torch.no_grad()
    def edit(model: DiffusionModel, prompt: str, guide: str = "", strength: float = 1.0) -> Edit:
        """What the middle block returns for the prompt, less what it returns for the guide."""
        seen: list[torch.Tensor] = []
        hook = model.denoiser.get_submodule(WHERE).register_forward_hook(lambda *call: seen.append(call[2]))
        for text in (prompt, guide):
            model.predict(model.noise_like([0]), torch.zeros(1, dtype=torch.long), model.encode([text]))
        hook.remove()
        return Edit({}, steering={"direction": (seen[0] - seen[1]).mean((0, 2, 3)).cpu()})

    @staticmethod
    @contextmanager
    def hooks(network: Any, steering: dict[str, torch.Tensor], strength: float, **_: Any) -> Iterator[None]:
        """While the edit is in force. steering: what `edit` gave; strength and the rest: the settings."""
        way = strength * steering["direction"][:, None, None]
        hook = network.get_submodule(WHERE).register_forward_hook(lambda *call: call[2] - way.to(call[2]))
        try:
            yield
        finally:
            hook.remove()


class Downhill:
    """Find the gates of all components by plain gradient descent."""

    @staticmethod
    def gates(
        task: Task,
        strength: float,
        rate: float,
        steps: int,
        batch: int,
        seed: int,
        start: torch.Tensor | None,
        **_: Any,
    ) -> torch.Tensor:
        """Gates (n,). start: of a weaker edit. Not taken here: `progress`, to be called with the steps done and all."""
        gates = torch.ones(task.space.n) if start is None else start.clone()
        for rows in task.draws(steps, batch, seed):
            _, slopes = task.slopes(rows, gates, strength)
            gates = (gates - rate * slopes / slopes.abs().max()).clamp(-1, 1)
        return gates
