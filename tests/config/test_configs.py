"""Every option of every group composes, and says the things that the package reads."""

import copy
import functools
import json
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from cad_exp.config.compose import Composer, hydra
from cad_exp.config.options import GROUPS, conf_folder, options
from cad_exp.config.resolve import resolve
from cad_exp.interventions.granularity_registry import GRANULARITIES
from cad_exp.utils.errors import UserError

FOLDER = conf_folder()
EVERY = [(group, option) for group in GROUPS for option in options(group, [FOLDER])]
MANDATORY = {
    "custom": ["concept.prompt=a red ball"],
    "local": ["model.path=somewhere"],
    "checkpoint": ["edit.path=somewhere"],
    "folder": ["images.path=somewhere"],
    "torchvision": ["images.path=somewhere", "images.dataset=DTD"],
    "hub": ["images.dataset=owner/name"],
}
PRESETS = {"revelio": "topk", "saeuron": "batchtopk", "sdxl_unbox": "topk"}
FIELDS = {
    "model": {"name", "path", "revision", "steps", "guidance", "resolution", "config", "weights", "lora"}
    | {"lora_scale", "edits", "erased"},
    "concept": {"name", "kind", "prompt", "base_prompt", "evaluation_prompts", "label", "ratio", "objective"},
    "granularity": {"name", "kinds", "scope"},
    "noisy_latents": {"samples", "steps", "guidance", "seed", "images", "batch_size"},
    "objective": {"name", "ablation"},
    "estimator": {"name"},
    "edit": {"name", "sign", "factor", "ratio", "count", "scope"},
    "evaluation": {"metrics", "samples", "retention_samples", "fid_bootstrap"},
    "judge": {"name"},
    "prompts": {"name"},
    "retention_prompts": {"name"},
    "tracking": {"mode", "project"},
    "runtime": {"device", "precision", "batch_size", "threads", "cache", "score", "checkpointing", "offload"},
    "experiment": set(),
    "task": {"name"},
    "images": {"name", "number", "size"},
    "activations": {"hookpoints", "timesteps", "draws", "prompt", "seed"},
    "probe": {"name", "untrained", "balanced", "seed"},
    "analysis": {"name", "seed"},
    "tokens": {"name", "hookpoints", "positions", "seed"},
    "sae": {"name", "k", "width", "seeds", "seed", "tokens", "batch_size", "optimiser", "lr", "aux", "controls"},
}


def composed(*overrides: str) -> dict:
    """A config as plain dicts, the caller's own: the same overrides are composed once."""
    return copy.deepcopy(_composed(*overrides))


@functools.cache
def _composed(*overrides: str) -> dict:
    return _composer().job(list(overrides))


@functools.cache
def _composer() -> Composer:
    """The package's own, which reads each file once: Hydra's takes seven times as long."""
    with hydra([FOLDER]) as composer:
        return composer


def by_hydra(*overrides: str) -> dict:
    with initialize_config_dir(str(FOLDER), version_base="1.3"):
        return OmegaConf.to_container(compose("config", list(overrides)), resolve=True, throw_on_missing=True)


@pytest.mark.parametrize("group, option", EVERY, ids=lambda value: value)
def test_every_option_composes(group: str, option: str):
    """Also to the same keys in the same order by the package's composer, of which the other tests have theirs."""
    given = [f"{group}={option}", *MANDATORY.get(option, [])]
    config = by_hydra(*given)
    assert json.dumps(config) == json.dumps(composed(*given))
    assert FIELDS[group] <= set(config.get(group, {}))
    name = config.get(group, {}).get("name") or option
    assert option.startswith(name) or PRESETS.get(option) == name  # a preset adds to the name, or is a work's
    assert (FOLDER / group / f"{option}.yaml").read_text().startswith("# "), (
        "the first comment is the option's line in --help"
    )


def test_every_folder_is_a_group():
    folders = {path.name for path in FOLDER.iterdir() if path.is_dir()} - {"hydra"}  # hydra/launcher: test_launchers.py
    assert folders == set(GROUPS) == set(FIELDS)


def test_concepts_are_the_papers():
    names = set(options("concept", [FOLDER]))
    assert {
        "tench",
        "english_springer",
        "cassette_player",
        "chain_saw",
        "church",
        "french_horn",
        "garbage_truck",
        "gas_pump",
        "golf_ball",
        "parachute",
        "pablo_picasso",
        "van_gogh",
        "rembrandt",
        "andy_warhol",
        "caravaggio",
        "nudity",
        "custom",
    } == names


@pytest.mark.parametrize("concept", sorted(set(options("concept", [FOLDER])) - {"custom"}))
def test_concepts_speak_the_embedded_worlds_language(concept: str):
    world = pytest.importorskip("cad_exp.mini.world")
    chosen = composed(f"concept={concept}")["concept"]
    assert chosen["label"] in [*world.OBJECTS, *world.STYLES, "naked"]
    captions = set(world.all_captions())
    asked = (*chosen["evaluation_prompts"], *chosen["validation_prompts"], chosen["prompt"])
    assert not [prompt for prompt in asked if prompt not in captions]
    assert not set(chosen["evaluation_prompts"]) & set(chosen["validation_prompts"])


@pytest.mark.parametrize("budget", ["ratio=0.1", "count=3", "factor=0.5"])
def test_a_joint_edit_takes_no_budget(budget: str):
    with pytest.raises(UserError, match=f"takes no edit.{budget.partition('=')[0]}"):
        resolve(composed("concept=church", "edit=joint", f"edit.{budget}"))


@pytest.mark.parametrize(
    "given, told",
    [
        (["edit=erase", "edit.strength=0.5"], "edit.strength=0.5 is not for edit=erase: give edit.ratio"),
        (["edit=erase", "edit.strength=auto", "edit.ratio=0.1"], "leave out edit.ratio=0.1"),
        (["edit=erase", "edit.strength=auto", "edit.count=3"], "leave out edit.count=3"),
        (["edit=erase", "edit.strength=auto", "edit.strengths=[0.5,2]"], "shares of the components"),
        (["edit=joint", "edit.strengths=[2,1]"], r"edit.strengths=\[2, 1\] do not rise"),
        (["edit=joint", "edit.strength=null"], "use auto, or a number above 0"),
        (["edit=joint", "edit.strength=0"], "edit.strength"),
        (["edit=joint", "edit.strength=often"], "edit.strength"),
        (["edit.instead=Church"], "edit.instead='Church' is the concept itself"),
        (["edit.instead=a photo of a  church"], "is the concept itself: name what is to be drawn"),
        (["edit.instead=a picture of a church"], "is the concept itself"),
        (["edit.instead=a dog", "edit.landing=0"], "edit.landing=0 leaves nothing of edit.instead='a dog'"),
        (["~edit.strength"], "edit.strength is missing: leave out ~edit.strength"),
        (["~edit.strengths"], "edit.strengths is missing: leave out ~edit.strengths"),
        (["edit.retain=[]"], "edit.retain is empty: add a prompt to keep"),
        (["edit.retain=[A  Church,a picture of a church]"], "edit.retain names only the concept itself"),
        (["edit.lowest=-0.01", "edit.highest=0.01"], "edit.least=0.02 leaves out every change: gates change by -0.01"),
        (["edit=greedy"], "edit=greedy is not for granularity=neuron: use granularity=head"),
        (["concept.objective.neuron=contrast"], "give objective=contrast"),
    ],
)
def test_a_strength_that_makes_no_sense_is_refused(given: list[str], told: str):
    with pytest.raises(UserError, match=told):
        resolve(composed("concept=church", *given))


def test_how_a_strength_is_chosen_belongs_to_a_run_that_chooses_it():
    """Else other wishes would be other runs of the same edit."""
    for given, chooses in (["edit=erase"], False), (["edit=erase", "edit.strength=auto"], True), (["edit=joint"], True):
        edit = resolve(composed("concept=church", *given))["edit"]
        assert ("erase" in edit, "strengths" in edit) == (chooses, chooses)
    given = resolve(composed("concept=church", "edit=joint", "edit.strength=0.5"))["edit"]
    assert given["strength"] == 0.5 and "keep" not in given


def test_edit_defaults_exist_for_every_granularity():
    for concept in options("concept", [FOLDER]):
        chosen = composed(f"concept={concept}", *MANDATORY.get(concept, []))["concept"]
        assert set(chosen["ratio"]) == set(chosen["objective"]) == set(GRANULARITIES)
        assert all(0 < ratio <= 1 for ratio in chosen["ratio"].values())
        assert set(chosen["objective"].values()) <= set(options("objective", [FOLDER])) - {"auto"}


def test_names_agree_with_the_package():
    from cad_exp.attribution.estimators import ESTIMATORS
    from cad_exp.attribution.objectives import OBJECTIVES
    from cad_exp.interventions.methods import METHODS

    for group, known in {
        "granularity": GRANULARITIES,
        "edit": METHODS,
        "estimator": ESTIMATORS,
        "objective": OBJECTIVES,
    }.items():
        # A preset (ablated_gradients_full) is a second config of the same name.
        given = [[f"{group}={option}", *MANDATORY.get(option, [])] for option in options(group, [FOLDER])]
        names = {composed(*overrides)[group]["name"] for overrides in given}
        assert names - {"auto"} == set(known), group


def test_one_seed_and_one_scope_for_everything():
    config = composed("edit=erase", "seed=7", "granularity=weight", "granularity.scope=row")
    assert config["noisy_latents"]["seed"] == 7 and config["edit"]["scope"] == "row"


def test_tracking_mode_can_be_given_either_way():
    assert composed("tracking=online")["tracking"] == composed("tracking.mode=online")["tracking"]


def test_no_absolute_path_in_any_config():
    assert not [path for path in Path(FOLDER).rglob("*.yaml") if ": /" in path.read_text()]
