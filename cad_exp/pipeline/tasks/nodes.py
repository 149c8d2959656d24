"""The nodes of a graph, each from the groups of a resolved config that it depends on."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from cad_exp.attribution.estimators import ESTIMATORS
from cad_exp.attribution.objectives import OBJECTIVES, formula_name, retained_prompts
from cad_exp.data import requests as image_requests
from cad_exp.data.requests import ImageRequest
from cad_exp.evaluation import redaction
from cad_exp.evaluation.judges import JUDGES, judge_class
from cad_exp.interventions.granularity_registry import GRANULARITIES
from cad_exp.interventions.methods import METHODS
from cad_exp.pipeline.stage import Chosen, Node
from cad_exp.pipeline.stages.edits import RandomEdit, ResampledEdit, SelectedEdit
from cad_exp.pipeline.stages.fidelity import Fidelity
from cad_exp.pipeline.stages.images import GivenImages, Pictures
from cad_exp.pipeline.stages.interactions import Interactions, JointEdit
from cad_exp.pipeline.stages.judge import Judge
from cad_exp.pipeline.stages.model import Model
from cad_exp.pipeline.stages.noisy_latents import Noised, PromptLatents, Trajectories, Walk
from cad_exp.pipeline.stages.question import Question
from cad_exp.pipeline.stages.replacement import VARIANTS, GivenFile, ReplacedWeights, Replacement
from cad_exp.pipeline.stages.scores import Scores, SpaceScores, Timesteps
from cad_exp.utils.errors import UserError

if TYPE_CHECKING:
    from cad_exp.interventions.edit import Edit

Config = dict[str, Any]
KEPT_FROM = 500_000  # the first seed of trajectories of prompts that are to stay


def judge(config: Config) -> Judge | None:
    """Return who judges the images; None for nobody."""
    settings = config["judge"]
    return None if judge_class(settings) is None else Judge(Chosen.of(JUDGES, settings), config)


def noisy_latents(config: Config, model: Model) -> PromptLatents:
    """Return the noisy latents of the concept's prompt, as the objective needs them."""
    concept = config["concept"]
    return _latents(config, model, concept["prompt"], concept["base_prompt"], config["noisy_latents"]["images"])


def held_out(config: Config, model: Model) -> PromptLatents:
    """Return noisy latents of other trajectories than the config's, as many as the fidelity study asks for."""
    concept, walked = config["concept"], config["noisy_latents"]
    number = -(-config["evaluation"]["fidelity"]["noisy_latents"] // walked["steps"])
    return _trajectories(config, model, concept["prompt"], concept["base_prompt"], walked["samples"], number)


def question(config: Config, model: Model, judge: Judge | None) -> Question:
    """Return the objective: of a contrast with the noisy latents of each prompt to retain."""
    objective, concept = config["objective"], config["concept"]
    prompts = retained_prompts(objective, concept)
    kept = tuple(_latents(config, model, prompt, objective["base_prompt"], None) for prompt in prompts)
    chosen = Chosen.of(OBJECTIVES, objective, formula_name(objective))
    asks = OBJECTIVES.fact(formula_name(objective), "asks")
    asked = (judge, concept["kind"], concept["label"]) if asks else ()
    return Question(chosen, model, config["runtime"]["batch_size"], kept, *asked)


def scores(config: Config, latents: PromptLatents, question: Question) -> SpaceScores:
    """Return the scores of the config's granularity; runtime.score=chosen asks for no others on the way."""
    granularity, kinds = Chosen.of(GRANULARITIES, config["granularity"]), config["granularity"]["kinds"]
    facts = {"concept": config["concept"]["name"], "seed": config["seed"]}
    estimator = Chosen.of(ESTIMATORS, config["estimator"])
    where = (granularity, None if kinds is None else tuple(kinds), config["runtime"]["score"] == "all")
    return SpaceScores.of(Scores(question, latents, estimator, facts, *where))


def timesteps(config: Config, scores: SpaceScores) -> Timesteps | None:
    """Return the scores by timestep, if the config asks for them."""
    bins = config["evaluation"]["timesteps"]
    return None if bins is None else Timesteps(scores, bins)


def fidelity(config: Config, scores: SpaceScores, judge: Judge | None) -> Fidelity | None:
    """Return the fidelity study, if the config asks for one."""
    settings, evaluation, concept = config["evaluation"]["fidelity"], config["evaluation"], config["concept"]
    if settings is None:
        return None
    if settings["held_out"] and isinstance(scores.scores.latents.parts[0], Noised):
        raise UserError("evaluation.fidelity.held_out needs trajectories: leave it out with objective=amplify")
    others = held_out(config, scores.scores.question.model) if settings["held_out"] else None
    study = partial(Fidelity, scores, others, settings, config["seed"], concept)
    if not settings["images"] or judge is None:
        return study()
    shown = image_requests.plan(concept, settings["images"]["samples"], 0, evaluation["seed"])
    requests = tuple(request for request in shown if request.purpose == "concept")
    return study(judge, judge.chosen.settings.get("nudenet") or {}, requests, evaluation["batch_size"])


def selected_edits(config: Config, scores: SpaceScores) -> dict[str, Node[Edit]]:
    """Return the edit that the scores choose and a random one of equal budget; nothing for edit=none."""
    if config["edit"]["name"] == "none":
        return {}
    budget = {name: config["edit"][name] for name in ("ratio", "count", "scope", "factor", "rounding")}
    chosen = SelectedEdit(scores, Chosen.of(METHODS, config["edit"]), **budget, seed=config["seed"])
    drawn = RandomEdit(chosen, config["seed"] + 1)
    if config["edit"].get("ablation") == "resample":
        return {"edited": ResampledEdit(chosen, scores), "random": ResampledEdit(drawn, scores)}
    return {"edited": chosen, "random": drawn}


def joint_edits(config: Config, scores: SpaceScores) -> dict[str, Node[Edit]]:
    """Return the edit that chooses all gates at once, and a random one with as many components and the same factors."""
    edit, whole, model = config["edit"], scores.scores, scores.scores.question.model
    kept = tuple(
        _trajectories(config, model, prompt, "", KEPT_FROM, edit["trajectories"]) for prompt in prompts_to_keep(config)
    )
    how = (edit["projections"], config["seed"], config["runtime"]["batch_size"])
    found = Interactions(model, whole.latents, kept, whole.granularity, whole.kinds, *how)
    chosen = JointEdit(scores, found, Chosen.of(METHODS, edit))
    return {"edited": chosen, "random": RandomEdit(chosen, config["seed"] + 1)}


def prompts_to_keep(config: Config) -> list[str]:
    """Return the prompts that a joint edit keeps: those of its config, or all things that the model's world names."""
    concept, asked = config["concept"], config["edit"]["retain"]
    if asked is not None:
        own = (concept["prompt"], *concept["evaluation_prompts"])
        return [prompt for prompt in asked if prompt not in own]
    about = (concept["kind"], concept["label"])
    things = image_requests.fitting_prompts(config["model"]["path"])
    return [prompt for prompt, *thing in things if tuple(thing) != about]


def replaced_weights(config: Config, model: Model) -> dict[str, Node[Edit]]:
    """Return the edit of a method that replaces weights, and a random change of the same size."""
    settings = config["edit"]
    file = GivenFile(settings["path"], "edit.path") if settings.get("path") else None
    made = Replacement(model, Chosen.of(METHODS, settings), config["seed"] + 1, file)
    return {variant: ReplacedWeights(made, variant) for variant in VARIANTS}


def pictures(
    config: Config, model: Model, edit: Node[Edit] | None, requests: Sequence[ImageRequest], variant: str
) -> Pictures:
    """Return the images of these requests under an edit; what becomes of explicit ones is a property of each."""
    return Pictures.of(model, edit, requests, config["evaluation"]["batch_size"], variant, partial(_redacted, config))


def _redacted(config: Config, request: ImageRequest) -> str:
    """Return what becomes of a request's image once it was judged: kept, blurred or dropped."""
    return redaction.mode(config) if redaction.is_explicit(request, config["concept"]) else "kept"


def _latents(config: Config, model: Model, prompt: str, base_prompt: str, folder: str | None) -> PromptLatents:
    """Return trajectories or noised images of a prompt; folder: images to noise, None: the model's own."""
    if OBJECTIVES.fact(formula_name(config["objective"]), "latents_kind") != "noised":
        return _trajectories(config, model, prompt, base_prompt, 0, config["noisy_latents"]["samples"])
    settings = config["noisy_latents"]
    n, first, batch = settings["samples"] * settings["steps"], _first_seed(config), config["runtime"]["batch_size"]
    images: GivenImages | Pictures
    if folder:
        images = GivenImages(folder)
    else:
        asked = [ImageRequest("noisy_latents", prompt, first + number, "", "") for number in range(n)]
        images = pictures(config, model, None, asked, "noisy latents")
    return PromptLatents((Noised(model, prompt, base_prompt, n, first, batch, images),))


def _trajectories(
    config: Config, model: Model, prompt: str, base_prompt: str, first: int, number: int
) -> PromptLatents:
    """Return the `number` trajectories from the `first` on, in parts that are walked at once."""
    settings, size = config["noisy_latents"], config["noisy_latents"]["batch_size"]
    start = _first_seed(config) + first
    seeds, parts = tuple(range(start, start + number)), []
    for batch in (seeds[i : i + size] for i in range(0, number, size)):
        # without guidance the trajectories are the base prompt's: one walk for all concepts
        walk = Walk(model, base_prompt, batch, settings["steps"]) if settings["guidance"] == 0 else None
        how = (batch, settings["steps"], settings["guidance"], size, walk)
        parts.append(Trajectories(model, prompt, base_prompt, *how))
    return PromptLatents(tuple(parts), settings["independent"])


def _first_seed(config: Config) -> int:
    seed: int = config["noisy_latents"]["seed"]
    return 1_000_000 * seed
