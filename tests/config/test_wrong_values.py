"""Every setting times every kind of value: it is accepted where it means something, else refused with its key.

No torch is needed for any of it, and no value is "unexpected".
"""

import copy
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from cad_exp.config.resolve import resolve
from cad_exp.utils.errors import UserError
from tests.cli.test_cli import ROOT
from tests.config.test_configs import composed

VALUES = {
    "text": "lyer",
    "fraction": 1.5,
    "whole": 3,
    "bool": True,
    "null": None,
    "list": ["lyer"],
    "dict": {"lyer": 1},
    "nan": float("nan"),
    "inf": float("inf"),
    "negative": -1,
    "zero": 0,
    "huge": 10**30,
}
# Commands that together hold every setting; a key counts where its group is first of that class.
COMMANDS = {
    "default": ["edit=erase"],
    "fidelity": ["evaluation=fidelity"],
    "real": ["judge=real"],
    "object": ["concept=church"],
    "style": ["concept=van_gogh"],
    "contrast": ["objective=contrast"],
    "clip": ["objective=clip"],
    "cad_public": ["edit=cad_public"],
    "esd": ["edit=esd"],
    "uce": ["edit=uce"],
    "rece": ["edit=rece"],
    "checkpoint": ["edit=checkpoint", f"edit.path={__file__}"],
    "imagenette": ["concept=church", "prompts=imagenette", "retention_prompts=coco30k"],
    "templates": ["prompts=templates", "retention_prompts=templates"],
    "integrated": ["estimator=integrated_gradients"],
    "patching": ["estimator=activation_patching"],
    "coar": ["estimator=coar"],
    "shapley": ["estimator=shapley", "granularity=head"],
    "wanda": ["estimator=wanda"],
    "joint": ["concept=church", "edit=joint"],
    "hard_concrete": ["concept=church", "edit=hard_concrete"],
    "greedy": ["concept=church", "edit=greedy", "granularity=head"],
    "activation_difference": ["estimator=activation_difference", "granularity=latent"],
    "random": ["estimator=random"],
    "latent": ["granularity=latent", "granularity.autoencoders=x"],
    "mean_difference": ["granularity=mean_difference"],
    "probe": ["task=probe"],
    "sae": ["task=sae"],
    "noised": ["task=sae", "tokens=noised"],
    "matryoshka": ["task=sae", "sae=matryoshka"],
    "class_overlap": ["task=analyse"],
    "cka": ["task=analyse", "analysis=cka"],
    "prototypes": ["task=analyse", "analysis=prototypes"],
    "zero_shot": ["task=analyse", "analysis=zero_shot"],
    "image_text_score": ["task=analyse", "analysis=image_text_score"],
    "segmentation": ["task=analyse", "analysis=segmentation"],
    "prompt_directions": ["task=analyse", "analysis=prompt_directions"],
    "attention": ["task=probe", "probe=attention"],
    "mlp": ["task=probe", "probe=mlp"],
    "folder": ["images=folder", "images.path=x"],
    "torchvision": ["images=torchvision", "images.path=x", "images.dataset=DTD"],
    "hub": ["images=hub", "images.dataset=a/b"],
}


def keys(value: Any, key: str = "") -> Iterator[str]:
    """Dotted keys of all settings, groups among them."""
    if key:
        yield key
    if isinstance(value, dict):
        for name, item in value.items():
            yield from keys(item, f"{key}.{name}".lstrip("."))


@cache
def config(command: str) -> dict[str, Any]:
    return composed(*COMMANDS[command])


@cache
def cases() -> list[tuple[str, str]]:
    """(command, key), every key once."""
    found: dict[str, str] = {}
    for command in COMMANDS:
        for key in keys(config(command)):
            found.setdefault(key, command)
    return [(command, key) for key, command in found.items()]


def put(given: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    changed = copy.deepcopy(given)
    *groups, last = key.split(".")
    place = changed
    for group in groups:
        place = place[group]
    place[last] = value
    return changed


def answer(command: str, key: str, value: str) -> str | None:
    """What `resolve` says of a value; None if it takes it."""
    try:
        resolve(put(config(command), key, VALUES[value]))
    except UserError as error:
        return str(error)
    return None


# Which kinds of value a setting takes; every other setting takes none of VALUES. What holds for `prompts` holds for
# `retention_prompts`. A list of texts takes numbers too, as texts.
ACCEPTED = {
    "text": """
        model.name model.path concept.name concept.kind concept.prompt concept.base_prompt concept.bare.prompt
        concept.bare.base_prompt concept.noun concept.artist objective.base_prompt edit.prompt edit.guide prompts.kind
        objective.name estimator.name edit.name concept.estimator concept.objective.weight concept.objective.neuron
        concept.objective.head concept.objective.layer concept.objective.latent
        concept.objective.principal concept.objective.mean_difference granularity.prompt
        granularity.base_prompt images.name images.path images.dataset images.image
        images.label activations.prompt tokens.base_prompt tokens.prompt probe.name
        sae.name granularity.autoencoders analysis.name analysis.neutral analysis.prompt analysis.rephrased
        analysis.hookpoint""",  # names may be those of a user's own class
    "text null": """
        model.revision model.weights model.config concept.label noisy_latents.images
        judge.nudenet.weights judge.resnet.weights
        judge.clip.weights judge.inception.weights judge.inception.reference judge.lpips.weights tracking.project
        tracking.entity tracking.group tracking.job_type tracking.name tracking.notes runtime.cache prompts.path
        prompts.file prompts.hub prompts.revision prompts.encoding images.split
        probe.image_encoder analysis.label analysis.image_encoder edit.instead""",
    "text fraction whole list negative zero huge": """
        analysis.attributes concept.evaluation_prompts objective.retain activations.hookpoints
        tokens.hookpoints analysis.hookpoints""",
    "text fraction whole null list negative zero huge": """
        model.edits model.lora evaluation.fidelity.sanity tracking.tags edit.preserve prompts.labels prompts.without
        edit.retain concept.validation_prompts
        prompts.objects prompts.artists prompts.subjects prompts.persons analysis.leave_out""",
    "text fraction whole null list negative zero huge ": "granularity.hookpoints estimator.others",
    "text whole zero": "prompts.columns.prompt",
    "text whole null zero": "prompts.columns.seed prompts.columns.guidance prompts.columns.label prompts.columns.id",
    "null": """
        model.resolution model.judge model.erased model.erasure_methods model.erasure_methods.esd concept.bare
        granularity.kinds edit.ratio edit.strength edit.ablation edit.scored_by
        evaluation.metrics evaluation.fidelity evaluation.fidelity.rates
        evaluation.fidelity.kinds evaluation.fidelity.negative evaluation.fidelity.images
        evaluation.fidelity.images.kinds judge.parts
        judge.lpips.resize tracking.mode prompts.columns.width prompts.columns.height prompts.groups
        prompts.templates""",
    "null zero": """
        evaluation.fidelity.fractions judge.nudenet.thresholds evaluation.fidelity.images.fractions""",
    "null dict": "prompts.where",
    "bool": """
        noisy_latents.independent estimator.midpoint estimator.first_order evaluation.fidelity.held_out
        evaluation.fidelity.stability runtime.checkpointing edit.bare_prompt prompts.public_code
        images.download probe.untrained probe.balanced sae.controls""",
    "whole": """
        granularity.samples granularity.steps
        model.steps model.erasure_methods.esd.steps noisy_latents.samples noisy_latents.steps noisy_latents.batch_size
        estimator.patterns estimator.passes estimator.steps evaluation.samples evaluation.retention_samples
        evaluation.reference_samples evaluation.batch_size evaluation.fidelity.noisy_latents
        evaluation.fidelity.images.samples runtime.batch_size edit.steps edit.batch_size edit.sampling_steps
        edit.checkpoint_every edit.epochs prompts.per_prompt activations.draws tokens.positions tokens.steps
        tokens.draws sae.k sae.seeds sae.tokens sae.batch_size sae.dead_after sae.width
        edit.samples edit.retention_samples edit.more_steps edit.batch edit.trajectories probe.imbalance
        probe.epochs probe.patience probe.batch probe.width
        analysis.number analysis.images analysis.steps analysis.folds analysis.seeds""",
    "whole null": """
        evaluation.fidelity.second_order
        edit.count evaluation.timesteps evaluation.fidelity.growth runtime.threads prompts.per_label prompts.limit
        probe.fused analysis.shots""",
    "whole zero": """
        granularity.seed images.seed analysis.seed activations.timesteps activations.seed probe.seed tokens.timesteps
        tokens.seed sae.seed sae.warmup sae.pages seed noisy_latents.seed estimator.seed evaluation.seed edit.seed
        edit.confirm edit.landing
        evaluation.fidelity.number analysis.timestep analysis.guided evaluation.fidelity.repeats
        evaluation.fidelity.draws evaluation.fidelity.images.number evaluation.fidelity.images.repeats
        evaluation.fidelity.images.draws evaluation.counterfactuals analysis.t""",
    "whole null zero": "prompts.offset prompts.public_seed analysis.timesteps",
    "fraction whole": """
        edit.strengths edit.temperature probe.rate analysis.scale analysis.temperature edit.lamb edit.erase_scale
        edit.regularisation""",
    "fraction whole null": "estimator.ridge sae.lr",
    "fraction zero": "edit.early",
    "fraction whole zero": """
        granularity.guidance
        model.guidance noisy_latents.guidance objective.weight objective.guidance edit.negative_guidance
        analysis.guidance edit.highest edit.beyond edit.sparsity edit.worst
        edit.sampling_guidance tokens.guidance sae.aux probe.decays""",
    "fraction whole null zero": "edit.preserve_scale",
    "fraction whole negative zero": """
        model.lora_scale concept.factor.weight concept.factor.neuron concept.factor.head concept.factor.layer
        concept.factor.latent
        concept.factor.principal concept.factor.mean_difference""",
    "fraction whole null negative zero": "edit.factor",
    "zero": "judge.nudenet.threshold estimator.level edit.least objective.frequencies edit.erase edit.keep",
    "negative": "edit.lowest",
}


def accepted(key: str) -> set[str]:
    """The values that the table allows for a key."""
    known = f"prompts.{key.partition('.')[2]}" if key.startswith("retention_prompts.") else key
    return {value for values, listed in ACCEPTED.items() if known in listed.split() for value in values.split()}


@pytest.mark.parametrize("value", VALUES)
def test_every_setting_takes_what_means_something_and_refuses_the_rest_with_its_key(value: str):
    for command, key in cases():
        said = answer(command, key, value)
        where = f"{key}={value}: {said}"
        if value in accepted(key):
            assert said is None, where
            continue
        assert said is not None, where
        assert key in said and said.isprintable() and len(said) < 600, where
        assert "unexpected" not in said and "Error" not in said and "pydantic" not in said, where


def test_the_table_names_no_setting_that_is_not_there():
    assert len(cases()) > 200
    assert {key for listed in ACCEPTED.values() for key in listed.split()} <= {key for _, key in cases()}


def test_every_setting_of_every_option_has_a_type():
    """No option of any group holds a key that is not checked, and every key of the reference is met above."""
    from cad_exp.config.reference import settings

    met, known = {key for _, key in cases()}, {each.key for each in settings()}
    assert known - met == {"estimator.block"}, "which no option holds"
    assert {key for key in met - known if not key.rpartition(".")[0].startswith(MAPPINGS)} == GROUPS


MAPPINGS = ("concept.ratio", "concept.factor", "concept.ablation", "concept.objective")
MAPPINGS += ("prompts.columns", "retention_prompts.columns")
GROUPS = {
    "model",
    "concept",
    "granularity",
    "noisy_latents",
    "objective",
    "estimator",
    "edit",
    "prompts",
    "retention_prompts",
}
GROUPS |= {"evaluation", "judge", "tracking", "runtime", "task", "images", "activations", "probe", "tokens", "sae"}
GROUPS |= {"analysis"} | {f"judge.{part}" for part in ("nudenet", "resnet", "clip", "inception", "lpips")}


# ------------------------------------------------------------------------------------------------ as a sentence says it


@pytest.mark.parametrize(
    "overrides, said",
    [
        (["edit.ratio=1.5"], "edit.ratio=1.5 is out of range: use a number above 0 and at most 1"),
        (["edit.scope=lyer"], "edit.scope=lyer is unknown: did you mean 'layer'? There are: row, layer, global"),
        (["edit.count=0"], "edit.count=0 is out of range: use a whole number of at least 1 and at most"),
        (["seed=abc"], "seed=abc is no whole number: use a whole number of at least 0 and at most 4,294,967,295"),
        (["seed=true"], "seed=true is no whole number"),
        (["seed=1.5"], "seed=1.5 is no whole number"),
        (["evaluation.seed=-1"], "evaluation.seed=-1 is out of range"),
        (["runtime.threads=0"], "runtime.threads=0 is out of range: use a whole number of at least 1"),
        (["runtime.device=gpu"], "runtime.device=gpu is unknown: did you mean"),
        (
            ["evaluation.metrics=[erasre]"],
            "evaluation.metrics holds 'erasre', which is unknown: did you mean 'erasure'",
        ),
        (["granularity.kinds=[]"], "granularity.kinds is empty: use a list, at least 1"),
        (["+edit.ration=1"], "unknown setting in edit 'ration': did you mean ratio?"),
        (["+nothing=1"], "unknown setting 'nothing'"),
        (["+concept.ratio.nueron=0.1"], "concept.ratio holds 'nueron', which is unknown: did you mean 'neuron'?"),
        (["~judge.clip"], "judge.clip is missing: add 'clip: ...' to the file of judge=auto, or leave out ~judge.clip"),
        (
            ["granularity=weight", "estimator=shapley"],
            "estimator=shapley is not for granularity=weight: use gran",
        ),
        (["granularity=neuron", "edit.scope=row"], "edit.scope=row is not for granularity=neuron: use layer or global"),
        (
            ["granularity=head", "granularity.kinds=feed-forward"],
            "granularity.kinds holds 'feed-forward', which has no head",
        ),
        (["estimator.name=shapely"], "estimator.name=shapely is unknown: did you mean 'shapley'?"),
        (
            ["estimator=ablated_gradients", "estimator.passes=99"],
            "estimator.passes=99 is more than estimator.patterns=32",
        ),
        (["objective=contrast", "+objective.guidance=2"], "objective.guidance is for objective.of=clip or judge"),
        (["objective=contrast", "objective.weight=[1,2]"], "objective.weight has 2 numbers for 4 prompts"),
        (["evaluation.timesteps=50", "objective=erase"], "evaluation.timesteps=50 is out of range"),
        (["edit.factor=1"], "edit.factor=1 leaves every component as it is"),
        (["edit.ratio=2", "edit.rounding=up"], "(1 more setting is wrong)"),
        (["edit.ratio=2", "edit.rounding=up", "seed=x"], "(2 more settings are wrong)"),
    ],
)
def test_the_sentence(overrides: list[str], said: str):
    with pytest.raises(UserError) as caught:
        resolve(composed(*overrides))
    assert said in str(caught.value)
    assert not (said.startswith("seed=") and "more" in str(caught.value)), "what refers to the seed is not wrong itself"


@pytest.mark.parametrize("key", ["edit.scope", "evaluation.metrics", "concept.ratio", "model", "granularity.kinds"])
def test_signs_of_control_are_written_out(key: str):
    for evil in ("a\x1b[31m\nb", ["a\x1b[31m\nb"], {"a\x1b[31m\nb": 1}, "x" * 10_000, ["x" * 10_000]):
        with pytest.raises(UserError) as caught:
            resolve(put(config("default"), key, evil))
        assert str(caught.value).isprintable() and len(str(caught.value)) < 500


def test_a_group_that_is_not_there_is_named():
    for group in GROUPS - {f"judge.{part}" for part in ("nudenet", "resnet", "clip", "inception", "lpips")}:
        given = copy.deepcopy(config("default"))
        del given[group]
        with pytest.raises(UserError, match=f"^{group} is missing: choose one of "):
            resolve(given)
        with pytest.raises(UserError, match=f"^{group}=null is no option of this group: choose one of "):
            resolve(put(config("default"), group, None))


def test_a_classes_own_settings_pass_where_the_class_is_the_users():
    """A new name brings its own keys; one of ours does not."""
    given = config("default")
    for group in ("objective", "estimator", "edit", "concept"):
        own = put(given, group, given[group] | {"name": "mine", "might": 3, "more": {"deep": [1]}})
        assert resolve(own)[group].items() >= {"name": "mine", "might": 3, "more": {"deep": [1]}}.items()
        with pytest.raises(UserError, match=f"unknown setting in {group} 'might'"):
            resolve(put(given, group, given[group] | {"might": 3}))
    assert resolve(put(given, "judge", {"name": "mine", "might": 3}))["judge"] == {"name": "mine", "might": 3}
    with pytest.raises(UserError, match="unknown setting in judge 'strength'"):
        resolve(put(given, "judge", {"name": "mini", "strength": 3}))


def test_a_config_is_checked_once_and_stays_as_it_was():
    from cad_exp.config.resolve import Resolved
    from cad_exp.config.validation import validate

    given = composed("evaluation.metrics=erasure")
    before = copy.deepcopy(given)
    found = resolve(given)
    assert given == before and isinstance(found, Resolved) and resolve(found) is found
    assert found["evaluation"]["metrics"] == ["erasure"]
    checked = validate(given)
    assert checked.evaluation.metrics == ("erasure",) and checked.edit.name == "joint"
    with pytest.raises(ValueError, match="frozen"):
        checked.edit.name = "uce"  # type: ignore[misc]


def test_the_reference_is_up_to_date():
    from cad_exp.config.reference import text

    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert page == text(), "python -m cad_exp.config.reference > docs/configuration.md"


def test_what_the_types_allow_is_what_the_classes_know():
    """The names that stand in the types, against the code that they name."""
    from cad_exp.attribution.estimators import ESTIMATORS
    from cad_exp.attribution.objectives.build import OBJECTIVES
    from cad_exp.config import rules
    from cad_exp.config.schema import attribution, edit, estimators, evaluation, prompts
    from cad_exp.data.prompts import rows, templates
    from cad_exp.evaluation.fidelity import ablations
    from cad_exp.evaluation.judge_sources import PARTS
    from cad_exp.interventions import ablation, spaces
    from cad_exp.interventions.methods import METHODS, finds_gates, needs_scores
    from cad_exp.interventions.spaces.base import SCOPES

    assert set(estimators.ESTIMATORS) == set(ESTIMATORS) and set(attribution.OBJECTIVES) == set(OBJECTIVES)
    assert set(edit.EDITS) == set(METHODS)
    assert {*attribution.GRANULARITIES, *attribution.DIRECTED} == set(spaces.GRANULARITIES)
    assert set(attribution.GRANULARITIES) == set(spaces.OWN) and attribution.SCOPES == SCOPES
    assert set(attribution.ABLATIONS) == set(ablation.ABLATIONS) and set(evaluation.PARTS) == set(PARTS)
    assert set(evaluation.ABLATIONS) == set(ablations.KINDS)
    assert prompts.COLUMNS == rows.FIELDS and set(prompts.GENERATED) == set(templates.GENERATORS)
    for name, cls in ((each, spaces.GRANULARITIES.get(each)) for each in spaces.OWN):
        assert rules.SCOPES[name] == cls.scopes and set(rules.KINDS[name]) == {*cls.allowed_kinds, *cls.optional_kinds}
    for name in ESTIMATORS:
        fits = {
            granularity
            for granularity in spaces.OWN
            if ESTIMATORS.get(name).fits(spaces.GRANULARITIES.get(granularity))
        }
        assert set(rules.FITTING.get(name, spaces.OWN)) & set(spaces.OWN) == fits
    assert all(OBJECTIVES.fact(name, "latents_kind") == "trajectory" for name in rules.ALONG)
    assert all(OBJECTIVES.get(name).latents_kind == OBJECTIVES.fact(name, "latents_kind") for name in OBJECTIVES)
    assert all(tuple(OBJECTIVES.get(name).asks) == OBJECTIVES.fact(name, "asks") for name in OBJECTIVES)
    assert all(OBJECTIVES.get(name).parts == OBJECTIVES.fact(name, "parts") for name in OBJECTIVES)
    for name, method in ((each, METHODS.get(each)) for each in METHODS):
        assert finds_gates({"name": name}) == hasattr(method, "gates")
        assert needs_scores({"name": name}) == (hasattr(method, "select") or hasattr(method, "gates"))


# ------------------------------------------------------------------------------------------------ as it is typed

BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n"
BOMB += "".join(f"{new}: &{new} [{','.join([f'*{old}'] * 9)}]\n" for old, new in ("ab", "bc", "cd", "de", "ef"))
TYPED = [
    ("edit.ratio=1.5", 1, "edit.ratio=1.5 is out of range"),
    ("edit.scope=lyer", 1, "edit.scope=lyer is unknown: did you mean 'layer'?"),
    ("edit.count=0", 1, "edit.count=0 is out of range"),
    ("seed=abc", 1, "seed=abc is no whole number"),
    ("seed=true", 1, "seed=true is no whole number"),
    ("seed=1.5", 1, "seed=1.5 is no whole number"),
    ("seed=1e99", 1, "is no whole number"),
    ("runtime.device=gpu", 1, "runtime.device=gpu is unknown"),
    ("runtime.threads=0", 1, "runtime.threads=0 is out of range"),
    ("evaluation.seed=-1", 1, "evaluation.seed=-1 is out of range"),
    ("evaluation.metrics=erasre", 1, "evaluation.metrics holds 'erasre'"),
    ("granularity=weight estimator=shapley", 1, "estimator=shapley is not for granularity=weight"),
    ("+edit.ration=1", 1, "unknown setting in edit 'ration'"),
    ("evaluation=none +evaluation.fidelity.number=3", 1, "evaluation.fidelity.rates is missing"),
    ("evaluation.fidelity.rates=[nan]", 1, "evaluation.fidelity.rates is a list of numbers"),
    ("model.steps=inf", 1, "model.steps=inf is no whole number"),
    ("~model", 2, "'~model' leaves out what every run needs"),
    ("~runtime.device", 1, "runtime.device is missing"),
    ("evaluation=null", 2, "unknown evaluation 'null'"),
    ("concept=_edit", 2, "concept.name is missing"),
    ("--config-dir=own concept=bomb", 2, "by aliases that repeat each other"),
    ("--config-dir=own estimator=typo", 1, "estimator.name=shapely is unknown: did you mean 'shapley'?"),
]
RUN = """
import contextlib, io, json, sys, time, types
from cad_exp.__main__ import main
found, ran = [], types.ModuleType("cad_exp.pipeline.run")
ran.execute = lambda config, graph, folder: print("it runs")
sys.modules[ran.__name__] = ran
for command in json.loads(sys.argv[1]):
    said, start = io.StringIO(), time.process_time()
    sys.argv = ["cad_exp"]
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
        code = main(command.split())
    found.append([code, said.getvalue(), time.process_time() - start])
print(json.dumps([found, sorted({"torch", "transformers", "diffusers"} & set(sys.modules))]))
"""


def test_a_wrong_value_is_one_sentence_before_torch(tmp_path: Path):
    """One process types all the commands, which must each be answered in two seconds of its time."""
    for group, name, content in (("concept", "bomb", BOMB), ("estimator", "typo", "name: shapely\n")):
        (tmp_path / "own" / group).mkdir(parents=True)
        (tmp_path / "own" / group / f"{name}.yaml").write_text(content)
    commands = json.dumps([command for command, _, _ in TYPED])
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", RUN, commands], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    answers, heavy = json.loads(done.stdout)
    assert heavy == []
    for (command, code, expected), (found, said, seconds) in zip(TYPED, answers, strict=True):
        assert found == code and expected in said, (command, found, said)
        assert said.startswith("error: ") and said.count("\n") == 1 and "unexpected" not in said, (command, said)
        assert command == TYPED[0][0] or seconds < 2, (command, seconds)  # the first one imports what all need


def test_one_value_is_a_list_of_one_on_the_command_line():
    assert resolve(composed("evaluation.metrics=erasure"))["evaluation"]["metrics"] == ["erasure"]
