"""The trajectories of a prompt, as the config asks for them."""

from __future__ import annotations

from typing import Any

from cad_exp.pipeline.stages.model import Model
from cad_exp.pipeline.stages.noisy_latents import PromptLatents, Trajectories, Walk

Config = dict[str, Any]


def trajectories(
    config: Config,
    model: Model,
    prompt: str,
    base_prompt: str,
    first: int,
    number: int,
    independent: bool = False,
) -> PromptLatents:
    """Return the `number` trajectories from the `first` on, in parts that are walked at once.

    independent: of each trajectory one step only. Elsewhere than for scores there would be too few noisy latents.
    """
    settings, size = config["noisy_latents"], config["noisy_latents"]["batch_size"]
    start = first_seed(config) + first
    seeds, parts = tuple(range(start, start + number)), []
    for batch in (seeds[i : i + size] for i in range(0, number, size)):
        # without guidance the trajectories are the base prompt's: one walk for all concepts
        walk = Walk(model, base_prompt, batch, settings["steps"]) if settings["guidance"] == 0 else None
        how = (batch, settings["steps"], settings["guidance"], size, walk)
        parts.append(Trajectories(model, prompt, base_prompt, *how))
    return PromptLatents(tuple(parts), independent)


def first_seed(config: Config) -> int:
    """Return the first seed of the config's noisy latents."""
    seed: int = config["noisy_latents"]["seed"]
    return 1_000_000 * seed
