"""Rules between settings: each alone is as its type demands, together they make no sense. No torch."""

from __future__ import annotations

from typing import Any

from cad_exp.config.own_prompts import asks, kept, words
from cad_exp.config.schema.attribution import DIRECTED, JUDGED
from cad_exp.config.schema.estimators import ESTIMATORS
from cad_exp.utils.errors import UserError
from cad_exp.utils.paths import find_file

Config = dict[str, Any]
WALK = ("strengths", "erase", "keep", "samples", "confirm", "retention_samples")  # how edit.strength=auto chooses
COLUMNS = ("neuron", "head", "layer")  # few enough for estimators that ablate them one by one
FITTING = {
    "shapley": ("head", "layer"),
    "greedy": ("head", "layer"),
    "leave_one_out": COLUMNS,
    "activation_patching": COLUMNS,
    "coar": COLUMNS,
}
FITTING |= {"activation_difference": DIRECTED}  # whose values can be read in activations
SCOPES = {"weight": ("row", "layer", "global"), "neuron": ("layer", "global")}
SCOPES |= {"head": ("layer", "global"), "layer": ("global",)}
ALONG = ("erase", "projection", "guidance_norm")  # objectives that are asked along trajectories
FLAT = ("erase", "guidance_norm")  # objectives that are least at the base prompt's run
ATTENTION = ("self-attention", "cross-attention", "joint-attention")
USUAL = (*ATTENTION, "feed-forward", "text-attention", "text-feed-forward")
KINDS = {"weight": (*USUAL, "feed-forward-in"), "neuron": USUAL, "layer": USUAL, "head": (*ATTENTION, "text-attention")}


def check_before_types(config: Config) -> None:
    """Raise UserError for an edit with another estimator than its own.

    Otherwise some of the keys of both would be called unknown.
    """
    edit, estimator = config.get("edit"), config.get("estimator")
    if not isinstance(edit, dict) or not isinstance(estimator, dict):
        return
    name, chosen = edit.get("name"), estimator.get("name")
    if isinstance(name, str) and isinstance(chosen, str) and chosen != "auto":
        check_own_scores(name, edit.get("scored_by"), chosen)


def check_own_scores(edit: str, own: str | None, estimator: str) -> None:
    """Raise UserError for an edit that is told apart by its scores alone (`own`), with those of another estimator."""
    if own in ESTIMATORS and own != estimator:
        raise UserError(f"edit={edit} goes by its own scores, estimator={own}: leave out the other estimator")


def check_concept(concept: Config, granularity: str) -> None:
    """Raise UserError where a granularity has no defaults, or where there is nothing to look for.

    White space does not count. What only the model's tokenizer finds to be the same is refused later (stages).
    """
    for key in ("ratio", "factor", "objective"):
        if granularity not in concept[key] and granularity not in SCOPES:  # a plug-in's: as neurons, unless it says
            concept[key] = concept[key] | {granularity: concept[key].get("neuron")}
        if concept[key].get(granularity) is None:
            raise UserError(
                f"concept.{key} has no value for {granularity}: add {key}: {{{granularity}: ...}} to its file"
            )
    prompt, base = concept["prompt"], concept["base_prompt"]
    if words(prompt) == words(base):
        raise UserError(
            f"concept.prompt and concept.base_prompt are both {ascii(words(prompt)[:60])}, so there is nothing to "
            'look for: concept.base_prompt="" compares with no prompt at all'
        )


def check_columns(prompts: Config, group: str) -> None:
    """Raise UserError for a set whose file has no prompts, or widths without heights."""
    columns = prompts.get("columns", {"prompt": "prompt"})
    if columns.get("prompt") is None:
        raise UserError(f"{group}.columns.prompt names no column: a set needs the one that holds its prompts")
    if (columns.get("width") is None) != (columns.get("height") is None):
        raise UserError(f"{group}.columns.width and {group}.columns.height go together: name both, or neither")


def check_timesteps(bins: int | None, latents: Config, objective: str) -> None:
    """Raise UserError for more parts of the denoising than a trajectory has steps."""
    if bins is not None and objective in ALONG and bins > latents["steps"]:
        raise UserError(
            f"evaluation.timesteps={bins} is out of range: the noisy latents have {latents['steps']} timesteps, so "
            f"use 1 to {latents['steps']}, or null"
        )


def check_granularity(granularity: Config, edit: Config, estimator: Config) -> None:
    """Raise UserError for kinds, a scope, an estimator or an edit that the granularity does not have."""
    name = granularity["name"]
    for kind in granularity["kinds"] or ():
        if kind not in KINDS.get(name, (kind,)):  # a plug-in's class knows its own
            raise UserError(f"granularity.kinds holds '{kind}', which has no {name}: use {', '.join(KINDS[name])}")
    for key, scope in (("granularity.scope", granularity["scope"]), ("edit.scope", edit["scope"])):
        if name in SCOPES and scope not in SCOPES[name]:
            own = " or ".join(SCOPES[name])
            raise UserError(f"{key}={'null' if scope is None else scope} is not for granularity={name}: use {own}")
    for group, chosen in (("estimator", estimator["name"]), ("edit", edit["name"])):
        fit = FITTING.get(chosen, tuple(SCOPES))
        if name in SCOPES and name not in fit:
            own = " or ".join(f"granularity={each}" for each in fit)
            raise UserError(f"{group}={chosen} is not for granularity={name}: use {own}")


def check_ablation(edit: Config, granularity: str) -> None:
    """Raise UserError for an edit of weights that is to resample: only directions have values to predict from."""
    if edit.get("ablation") == "resample" and granularity in SCOPES:
        own = " or ".join(f"granularity={each}" for each in DIRECTED)
        raise UserError(
            f"edit.ablation=resample is not for granularity={granularity}: use {own}, or edit.ablation=scale"
        )


def check_estimator(estimator: Config) -> None:
    """Raise UserError for more passes than there are ablations to share out."""
    if {"passes", "patterns"} <= set(estimator) and estimator["passes"] > estimator["patterns"]:
        raise UserError(
            f"estimator.passes={estimator['passes']} is more than estimator.patterns={estimator['patterns']}: "
            "use 1 or more passes, and as many patterns or more"
        )


def check_patching(estimator: Config, objective: Config) -> None:
    """Raise UserError for patches into the base prompt's run, where an objective has no such run or no slope there."""
    if estimator.get("direction") != "denoising":
        return
    name = objective["name"]
    if name == "contrast":
        raise UserError(
            f"estimator.direction=denoising is not for objective={name}: use estimator.direction=noising, "
            "or another objective"
        )
    if estimator["first_order"] and name in FLAT:
        raise UserError(
            f"estimator.first_order=true sees nothing with estimator.direction=denoising and objective={name}: it is "
            "flat at the base prompt's run; use objective=projection, or estimator.first_order=false"
        )


def check_objective(objective: Config, concept: Config) -> None:
    """Check what an objective is told.

    Raises UserError for a contrast with nothing to retain, or with another number of weights than of prompts.
    Raises it for settings of another objective too, and for weights by steps where there are no trajectories.
    """
    of = objective.get("of", "projection") if objective["name"] == "contrast" else objective["name"]
    if objective.get("weighting") == "image" and of == "amplify":
        raise UserError(
            "objective.weighting=image is for trajectories, and amplify looks at noised images: use uniform, snr or x0"
        )
    if objective["name"] != "contrast":
        return
    if "retain" not in objective:  # chosen by the concept, for a group that holds other settings
        raise UserError("contrast has settings of its own, so no concept chooses it: give objective=contrast")
    if "frequencies" in objective and of in JUDGED:
        raise UserError(f"objective.frequencies is for predictions, and {of} looks at images: leave it out")
    if "guidance" in objective and of not in JUDGED:
        raise UserError(f"objective.guidance is for objective.of={' or '.join(JUDGED)}, not {of}: leave it out")
    others = kept(objective["retain"], concept)
    if not others:
        raise UserError("objective.retain names only the concept itself: add a prompt to keep")
    weight = objective.get("weight")
    if isinstance(weight, list) and len(weight) != len(others):
        raise UserError(
            f"objective.weight has {len(weight)} numbers for {len(others)} prompts to retain: give one for each, "
            "or one for all"
        )


def check_edit(edit: Config) -> None:
    """Raise UserError for an edit whose sign is another edit's, or that can change nothing whatever the scores are."""
    name, sign = edit["name"], edit["sign"]
    wanted = {"none": None, "amplify": "negative"}.get(name, "positive")
    if sign != wanted:
        other = {"negative": "edit=amplify", "positive": "edit=erase"}.get(sign, "another edit")
        takes = f"takes {wanted} components" if wanted else "takes no components"
        shown = "null" if sign is None else sign
        raise UserError(f"edit={name} {takes}, so edit.sign={shown} does not go with it: {other} takes those")
    ratio, count, scope = edit["ratio"], edit["count"], edit["scope"]
    if ratio is not None and count is not None:
        raise UserError(f"edit.ratio={ratio} and edit.count={count} both say how much to edit: give one of them")
    if count is not None and scope != "global":
        raise UserError(
            f"edit.count={count} counts over the whole model, not per {scope}: "
            "add granularity.scope=global, or give edit.ratio instead"
        )
    if "guide" in edit and words(edit["prompt"]) in ("", words(edit["guide"])):
        raise UserError(
            f"edit={name} has nothing to erase: edit.prompt={edit['prompt']!r} is empty or the same text as edit.guide"
        )


def check_gates(edit: Config) -> None:
    """Raise UserError for a budget of components, which a method that finds every gate has no use for."""
    for key in ("ratio", "count", "factor"):
        if edit[key] is not None:
            raise UserError(
                f"edit={edit['name']} finds a factor for every component, so it takes no edit.{key}: "
                "add edit=erase, which takes the best scores"
            )
    if edit["strength"] is None:
        raise UserError(f"edit.strength=null is not for edit={edit['name']}: use auto, or a number above 0")
    if {"lowest", "highest"} <= set(edit) and edit["least"] > max(-edit["lowest"], edit["highest"]):
        raise UserError(
            f"edit.least={edit['least']} leaves out every change: gates change by {edit['lowest']} to "
            f"{edit['highest']} (edit.lowest, edit.highest)"
        )


def check_kept(edit: Config, concept: Config) -> None:
    """Raise UserError for gates that have nothing to keep: no prompt but those of the concept itself."""
    asked = edit.get("retain")
    if asked is None or concept["base_prompt"] or any(not asks(prompt, concept) for prompt in asked):
        return
    what = "names only the concept itself" if asked else "is empty"
    raise UserError(f"edit.retain {what}: add a prompt to keep, or leave it out to keep the model's whole world")


def check_strength(edit: Config) -> None:
    """Raise UserError for a strength that the edit does not have, or strengths that do not rise."""
    for key in ("strength", *WALK):
        if key not in edit:
            raise UserError(f"edit.{key} is missing: leave out ~edit.{key}")
    strength, tried, scored = edit["strength"], list(edit["strengths"]), "beyond" not in edit
    if not scored:
        check_gates(edit)
    if strength is None:
        return
    if scored and strength != "auto":
        raise UserError(
            f"edit.strength={strength} is not for edit={edit['name']}: give edit.ratio, or edit.strength=auto"
        )
    if strength != "auto":
        return
    for key in ("ratio", "count"):
        if edit[key] is not None:
            raise UserError(f"edit.strength=auto chooses how much to edit: leave out edit.{key}={edit[key]}")
    if not tried or tried != sorted(set(tried)):
        raise UserError(f"edit.strengths={tried} do not rise: name the weakest first, such as [0.1,0.2]")
    if scored and tried[-1] > 1:
        raise UserError(f"edit.strengths={tried} are shares of the components for edit={edit['name']}: use 1 at most")


def check_instead(edit: Config, concept: Config) -> None:
    """Raise UserError for a prompt that cannot take the concept's place: its own, or one without trajectories."""
    prompt = edit.get("instead")
    if prompt in (None, "auto"):
        return
    if asks(prompt, concept):
        raise UserError(f"edit.instead={prompt!r} is the concept itself: name what is to be drawn in its place")
    if not edit["landing"]:
        raise UserError(f"edit.landing=0 leaves nothing of edit.instead={prompt!r}: use 1 or more, or leave out both")


def check_without_scores(edit: Config) -> None:
    """Raise UserError for what a method without scores does not take, and for a file of weights that is not there."""
    for key in ("ratio", "count", "factor"):
        if edit[key] is not None:
            raise UserError(f"edit={edit['name']} chooses no components: it takes no edit.{key}")
    if "path" in edit:
        find_file(edit["path"], "edit.path", "file of weights", "give edit.path=FILE")


def check_sae(sae: Config) -> None:
    """Raise UserError for shares of a nested dictionary that do not rise to 1."""
    shares = list(sae.get("shares", [1]))
    if shares != sorted(set(shares)) or shares[-1] != 1:
        raise UserError(f"sae.shares={shares} do not rise to 1: the last is the whole dictionary, such as [0.25,0.5,1]")
