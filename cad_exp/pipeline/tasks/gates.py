"""What the gates of an edit are to lose and to keep, and which prompts take the concept's place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cad_exp.config.own_prompts import asks, is_thing
from cad_exp.data import requests as image_requests
from cad_exp.interventions.methods import METHODS, finds_gates, own_settings
from cad_exp.pipeline.stage import Chosen
from cad_exp.pipeline.stages.instead import Nearest, NearestPrompt
from cad_exp.pipeline.stages.joint import Gates, GatesEdit, GatesTask
from cad_exp.pipeline.stages.model import Model
from cad_exp.pipeline.stages.noisy_latents import PromptLatents
from cad_exp.pipeline.stages.scores import SpaceScores
from cad_exp.pipeline.tasks.trajectories import trajectories
from cad_exp.utils.registry import TARGET

Config = dict[str, Any]
Draw = tuple[int, int]  # trajectories: the first seed, and their number
KEPT_FROM = 500_000  # the first seed of trajectories of prompts that are to stay
LANDING_FROM = 600_000  # of those of the prompts whose images take a concept's place
VALIDATION_FROM = 700_000  # of all those at which an edit's strength is chosen
VALIDATED = 4  # trajectories of the concept at which it is chosen
# settings of a method that finds gates, but not its own: they belong to what is asked of it, and to its edit
OF_TASK = (
    *("strength", "steps", "more_steps", "least"),
    *("beyond", "instead", "landing", "early", "trajectories", "retain"),
)


def gates_edits(config: Config, scores: SpaceScores, strengths: Sequence[float]) -> tuple[GatesEdit, ...]:
    """Return the edits of gates, one for each strength, weakest first.

    Each begins where the one before ended; those between two others lead nowhere (`with_between`).
    """
    edit, task = config["edit"], gates_task(config, scores)
    own = {key: value for key, value in own_settings(edit).items() if key not in OF_TASK}
    named = {key: edit[key] for key in ("name", TARGET) if key in edit}
    method, found, last = Chosen.of(METHODS, own | named), [], None
    for place, number in enumerate(strengths):
        steps = edit["steps"] if last is None else edit["more_steps"]
        gates = Gates(task, method, number, steps, config["seed"], last)
        found.append(GatesEdit(gates, scores, edit["least"], edit["strength"] == "auto"))
        last = last if place % 2 else gates
    return tuple(found)


def gates_task(config: Config, scores: SpaceScores) -> GatesTask:
    """Return what is asked of the gates, at the noisy latents at which they are found."""
    edit, samples = config["edit"], config["noisy_latents"]["samples"]
    drawn = (0, samples), (KEPT_FROM, edit["trajectories"]), (LANDING_FROM, edit["landing"])
    return _task(config, scores, config["concept"]["prompt"], *drawn)


def held_out_task(config: Config, scores: SpaceScores) -> GatesTask:
    """Return the same at other trajectories, of other words for the concept: there a strength is chosen.

    Of an edit that goes by scores: how far the concept is from its base prompt, and how far all else has moved.
    """
    few = (VALIDATION_FROM, VALIDATED)
    landing = (VALIDATION_FROM, min(VALIDATED, config["edit"].get("landing", 0)))
    return _task(config, scores, config["concept"]["validation_prompts"][0], few, (VALIDATION_FROM, 1), landing)


def _task(config: Config, scores: SpaceScores, prompt: str, concept: Draw, kept: Draw, landing: Draw) -> GatesTask:
    """Return what is to go and to stay. The concept's base prompt is to stay as well."""
    edit, model, base = config["edit"], scores.scores.question.model, config["concept"]["base_prompt"]
    prompts = dict.fromkeys([*prompts_to_keep(config), *([base] if base else [])])  # each once
    retained = tuple(trajectories(config, model, each, "", *kept) for each in prompts)
    latents = to_go(config, model, prompt, *concept)
    if not finds_gates(edit):
        return GatesTask(model, scores, latents, retained, 0.0, 0.0, base)
    places = instead(config, model, *landing)
    return GatesTask(model, scores, latents, retained, edit["beyond"], edit["early"], base, places)


def to_go(config: Config, model: Model, prompt: str, first: int, number: int) -> tuple[PromptLatents, ...]:
    """Return noisy latents of the prompts that ask for the concept, which share so many trajectories.

    It is this prompt; but of a style that leaves things in place, each of them in the style. They are guided from the
    empty prompt, as images are: guided from the base prompt, they are not what the edited model will see.
    """
    prompts = list(things_in_style(config)) or [prompt]
    each = -(-number // len(prompts))
    return tuple(trajectories(config, model, prompt, "", first, each) for prompt in prompts)


def instead(config: Config, model: Model, first: int, number: int) -> tuple[PromptLatents | Nearest, ...]:
    """Return noisy latents of the prompts whose images take the place of the concept's; none where there are none.

    The empty prompt's images are anything. An object leaves nothing behind, so another thing has to stand there; a
    style leaves what it was laid over.
    """
    edit, concept, things = config["edit"], config["concept"], things_in_style(config)
    given = concept["base_prompt"] if edit["instead"] in (None, "auto") else edit["instead"]
    prompts = list(things.values()) or ([given] if given else [])
    if not number:
        return ()
    if prompts:
        each = -(-number // len(prompts))
        return tuple(trajectories(config, model, prompt, "", first, each) for prompt in prompts)
    if edit["instead"] is None or concept["kind"] != "object":
        return ()
    prompts, size = prompts_to_keep(config, styles=False), config["runtime"]["batch_size"]
    if not prompts:
        return ()
    (own,) = to_go(config, model, concept["prompt"], 0, config["noisy_latents"]["samples"])
    made = tuple(trajectories(config, model, prompt, "", first, number) for prompt in prompts)
    return (Nearest(NearestPrompt(model, own, tuple(prompts), edit["early"], size), made),)


def things_in_style(config: Config) -> dict[str, str]:
    """Return for each thing in the style that is to go the thing without it; nothing unless a style leaves things."""
    edit, concept = config["edit"], config["concept"]
    leaves = edit.get("instead") == "auto" and edit["landing"] and not concept["base_prompt"]
    if concept["kind"] != "style" or concept["label"] is None or not leaves:
        return {}
    things = [prompt for prompt in prompts_to_keep(config, styles=False) if "in the style of" not in prompt]
    shown = {*concept["evaluation_prompts"], *concept.get("validation_prompts", ())}
    styled = {f"{thing} in the style of {concept['label']}": thing for thing in things}
    return {prompt: thing for prompt, thing in styled.items() if prompt not in shown}


def prompts_to_keep(config: Config, styles: bool = True) -> list[str]:
    """Return the prompts that gates keep: those of the config, or all things that the model's world names.

    styles: whether styles are among the world's things.
    """
    concept, asked = config["concept"], config["edit"].get("retain")
    if asked is not None:
        return [prompt for prompt in asked if not asks(prompt, concept)]
    things = image_requests.fitting_prompts(config["model"]["path"])
    return [
        prompt for prompt, kind, label in things if not is_thing(concept, kind, label) and (styles or kind != "style")
    ]
