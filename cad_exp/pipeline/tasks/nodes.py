"""The nodes of a graph, each from the groups of a resolved config that it depends on."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import repeat
from typing import TYPE_CHECKING, Any

from cad_exp.attribution.estimators import ESTIMATORS
from cad_exp.attribution.objectives import OBJECTIVES, formula_name, retained_prompts
from cad_exp.data import requests as image_requests
from cad_exp.data.requests import ImageRequest
from cad_exp.evaluation import redaction
from cad_exp.evaluation.judges import JUDGES, judge_class
from cad_exp.interventions.granularity_registry import GRANULARITIES
from cad_exp.interventions.methods import METHODS, finds_gates
from cad_exp.pipeline.stage import Chosen, Node
from cad_exp.pipeline.stages.edits import RandomEdit, ResampledEdit, SelectedEdit, SingleEdit
from cad_exp.pipeline.stages.fidelity import Fidelity
from cad_exp.pipeline.stages.images import GivenImages, Pictures
from cad_exp.pipeline.stages.joint import GatesEdit
from cad_exp.pipeline.stages.judge import Judge
from cad_exp.pipeline.stages.judgements import Judged
from cad_exp.pipeline.stages.model import Model
from cad_exp.pipeline.stages.noisy_latents import Noised, PromptLatents
from cad_exp.pipeline.stages.question import Question
from cad_exp.pipeline.stages.replacement import VARIANTS, GivenFile, ReplacedWeights, Replacement
from cad_exp.pipeline.stages.scores import Scores, SpaceScores, Timesteps
from cad_exp.pipeline.stages.strength import Picked, Strength, with_between
from cad_exp.pipeline.tasks.gates import gates_edits, held_out_task
from cad_exp.pipeline.tasks.trajectories import first_seed, trajectories
from cad_exp.utils.errors import UserError

if TYPE_CHECKING:
    from cad_exp.interventions.edit import Edit

Config = dict[str, Any]
SHOWN_OFF = 2  # images with one component switched off


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
    return trajectories(config, model, concept["prompt"], concept["base_prompt"], walked["samples"], number)


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


def scored_edits(config: Config, scores: SpaceScores, judge: Judge | None) -> dict[str, Node[Edit]]:
    """Return the edit of a method that goes by scores, and a random one of equal budget; nothing for edit=none."""
    edit = config["edit"]
    if edit["name"] == "none":
        return {}
    walks, gates = "strengths" in edit, finds_gates(edit)
    strengths: list[Any] = with_between(edit["strengths"]) if walks else [edit["strength"] if gates else None]
    of = gates_edits if gates else selected_edits
    made: tuple[GatesEdit | SelectedEdit, ...] = of(config, scores, strengths)
    resamples = edit.get("ablation") == "resample"
    acting: tuple[Node[Edit], ...] = tuple(ResampledEdit(each, scores) for each in made) if resamples else made
    if not walks:
        edited, drawn = acting[0], RandomEdit(made[0], config["seed"] + 1)
    else:
        walk = strength(config, scores, judge, acting)
        edited, drawn = Picked(acting, walk, scores), RandomEdit(Picked(made, walk, scores), config["seed"] + 1)
    return {"edited": edited, "random": ResampledEdit(drawn, scores) if resamples else drawn}


def selected_edits(config: Config, scores: SpaceScores, ratios: Sequence[Any]) -> tuple[SelectedEdit, ...]:
    """Return the edits that take the components with the best scores, one for each ratio; None: the config's budget."""
    edit, method = config["edit"], Chosen.of(METHODS, config["edit"])
    rest = {name: edit[name] for name in ("scope", "factor", "rounding")} | {"seed": config["seed"]}

    def of(ratio: float | None) -> SelectedEdit:
        budget = (edit["ratio"], edit["count"]) if ratio is None else (ratio, None)
        return SelectedEdit(scores, method, *budget, **rest)

    return tuple(of(ratio) for ratio in ratios)


def counterfactuals(config: Config, scores: SpaceScores, requests: Sequence[ImageRequest]) -> tuple[Pictures, ...]:
    """Return images with one component switched off: of two thirds that make the concept, of a third that suppress it.

    They are of the first requests of the concept. None where these images would not be kept.
    """
    number = config["evaluation"]["counterfactuals"]
    asked = one_each([request for request in requests if request.purpose == "concept"], SHOWN_OFF)
    if not asked or _redacted(config, asked[0]) == "dropped":
        return ()
    makes = -(-2 * number // 3)
    ranks = [(1, rank) for rank in range(makes)] + [(-1, rank) for rank in range(number - makes)]
    model = scores.scores.question.model
    edits = [SingleEdit(scores, sign, rank) for sign, rank in ranks]
    return tuple(pictures(config, model, edit, asked, "one component off") for edit in edits)


def one_each(requests: Sequence[ImageRequest], number: int) -> list[ImageRequest]:
    """Return the first `number` requests, of as many prompts as there are."""
    seen: dict[str, int] = {}
    turns = []
    for request in requests:
        seen[request.prompt] = seen.get(request.prompt, -1) + 1
        turns.append(seen[request.prompt])
    order = sorted(range(len(requests)), key=turns.__getitem__)
    return [requests[index] for index in sorted(order[:number])]


def strength(config: Config, scores: SpaceScores, judge: Judge | None, edits: tuple[Node[Edit], ...]) -> Strength:
    """Return the walk over edits, weakest first: at trajectories, seeds and words that no table shows."""
    edit, concept, model = config["edit"], config["concept"], scores.scores.question.model
    strengths = tuple(with_between(edit["strengths"]))
    wishes = (strengths, edit["erase"], edit["keep"], held_out_task(config, scores))
    numbers = (edit["samples"], edit["confirm"], edit["retention_samples"])
    asked, further = image_requests.validation(concept, *numbers, config["seed"], config["model"]["path"])
    if judge is None or concept["label"] is None:
        return Strength(edits, *wishes, None, (), None, (), (), ())
    variants = ("validation", *(f"strength {number}" for number in strengths))

    def shown(requests: list[ImageRequest]) -> list[Pictures]:
        return [pictures(config, model, *each) for each in zip((None, *edits), repeat(requests), variants)]

    first = shown(asked)
    intact, *tried = (Judged.of(judge, each, first[0]) for each in first)
    # whether they show the concept is all that is asked, so the intact model need not draw them too
    confirmed = tuple(Judged.of(judge, each, each) for each in shown(further)[1:])
    return Strength(edits, *wishes, judge, tuple(asked), intact, tuple(tried), tuple(further), confirmed)


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
        walked = config["noisy_latents"]
        return trajectories(config, model, prompt, base_prompt, 0, walked["samples"], walked["independent"])
    settings = config["noisy_latents"]
    n, first, batch = settings["samples"] * settings["steps"], first_seed(config), config["runtime"]["batch_size"]
    images: GivenImages | Pictures
    if folder:
        images = GivenImages(folder)
    else:
        asked = [ImageRequest("noisy_latents", prompt, first + number, "", "") for number in range(n)]
        images = pictures(config, model, None, asked, "noisy latents")
    return PromptLatents((Noised(model, prompt, base_prompt, n, first, batch, images),))
