"""Adding to the package from outside: registries, an installed package with one of each kind, and its page."""

import ast
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cad_exp.attribution.estimators import make_estimator
from cad_exp.attribution.objectives import OBJECTIVES
from cad_exp.cli.plugins import REGISTRIES, faults
from cad_exp.config.resolve import resolve
from cad_exp.data.metric_registry import METRICS
from cad_exp.pipeline.preflight import graph_of
from cad_exp.utils import registry
from cad_exp.utils.errors import UserError
from cad_exp.utils.registry import Entry, Registry
from tests.attribution.test_estimators import Toy
from tests.cli.test_cli import ROOT
from tests.config.test_configs import composed

EXAMPLE = ROOT / "tests" / "plugin_example"
PAGE = (ROOT / "docs" / "extend.md").read_text(encoding="utf-8")
CORE = "attribution cli config data evaluation interventions models pipeline reporting utils".split()


# Registries


@pytest.fixture
def package(tmp_path: Path, monkeypatch):
    """Makes an installed package `other 1.0` of these modules and entry points."""

    def install(entry_points: str, **modules: str) -> None:
        info = tmp_path / "other-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(entry_points)
        for name, text in modules.items():
            (tmp_path / f"{name}.py").write_text(text)
        monkeypatch.syspath_prepend(tmp_path)
        registry._points.cache_clear()

    yield install
    registry._points.cache_clear()


def test_a_name_of_another_package_is_found_and_says_whose_it_is(package):
    package("[cad_exp.thing]\ntheirs = other_things:Theirs\n", other_things="class Theirs:\n    size = 3\n")
    things = Registry("thing", {"ours": "cad_exp.utils.registry:Entry"})
    assert things.names() == ["ours", "theirs"] and "theirs" in things and len(things) == 2
    assert things.where("theirs") == Entry("other_things:Theirs", "other 1.0")
    assert things.where("ours").origin == "cad_exp" and things.get("ours") is Entry
    assert things.get("theirs").size == things.fact("theirs", "size") == 3
    with pytest.raises(UserError, match="unknown thing 'their': did you mean 'theirs'"):
        things.get("their")


def test_a_package_that_takes_a_name_of_ours_is_refused_and_breaks_no_other(package):
    package("[cad_exp.thing]\nours = other_things:Theirs\n", other_things="class Theirs: ...\n")
    things = Registry("thing", {"ours": "cad_exp.utils.registry:Entry", "own": "cad_exp.utils.registry:Registry"})
    with pytest.raises(UserError, match="thing 'ours' is claimed by cad_exp and by other 1.0: rename it in other 1.0"):
        things.get("ours")
    assert things.get("own") is Registry
    assert list(faults((things,))) == [str(pytest.raises(UserError, things.get, "ours").value)]


def test_a_broken_package_is_named_in_one_sentence_and_breaks_no_other(package):
    package(
        "[cad_exp.thing]\nbroken = other_broken:Thing\nlost = other_things:Gone\n",
        other_broken="import no_such_module\n",
        other_things="",
    )
    things = Registry("thing", {"ours": "cad_exp.utils.registry:Entry"})
    with pytest.raises(UserError, match="thing 'broken' of other 1.0 cannot be loaded .*no_such_module"):
        things.get("broken")
    with pytest.raises(UserError, match="thing 'lost' of other 1.0 cannot be loaded from other_things:Gone"):
        things.get("lost")
    assert things.get("ours") is Entry and len(list(faults((things,)))) == 2


def test_a_dotted_path_stands_for_a_name(package):
    package("", other_dotted="class Theirs:\n    def __init__(self, size=1):\n        self.size = size\n")
    things = Registry("thing")
    assert things.make({"name": "mine", "_target_": "other_dotted.Theirs", "size": 4}).size == 4
    with pytest.raises(UserError, match="thing mine does not take these settings: .*'sise'"):
        things.make({"name": "mine", "_target_": "other_dotted.Theirs", "sise": 4})
    with pytest.raises(UserError, match="_target_=Theirs is no dotted path"):
        things.of({"name": "mine", "_target_": "Theirs"})
    with pytest.raises(UserError, match="from other_thinks:Theirs .*in the folder that holds this module, or name the"):
        things.of({"name": "mine", "_target_": "other_thinks.Theirs"})


def test_the_settings_of_a_class_decide_what_it_is_made_of():
    things = Registry("thing", {"path": "pathlib:Path"})
    assert things.make({"name": "path"}) == Path()


@pytest.mark.parametrize("known", [OBJECTIVES, METRICS], ids=lambda known: known.kind)
def test_what_an_entry_says_ahead_is_what_its_class_says(known: Registry):
    for name in known:
        facts = known.where(name).facts
        assert facts and all(getattr(known.get(name), key) == value for key, value in facts.items()), name


@pytest.mark.parametrize("known", REGISTRIES, ids=lambda known: known.kind)
def test_every_name_leads_to_something(known: Registry):
    assert len(known) and all(callable(known.get(name)) for name in known)


def test_names_are_listed_without_torch():
    code = "import sys, cad_exp.cli.plugins as p; print([r.names() for r in p.REGISTRIES] and 'torch' in sys.modules)"
    command = [sys.executable, "-c", code]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout == "False\n"


def test_the_core_has_no_word_for_the_laboratory():
    """Only comments and docstrings may speak of it."""
    told = []
    for file in (file for floor in CORE for file in (ROOT / "cad_exp" / floor).rglob("*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        nodes = [node for node in ast.walk(tree) if hasattr(node, "body") and isinstance(node.body, list)]
        docs = {id(node.body[0].value) for node in nodes if node.body and isinstance(node.body[0], ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
                told += [f"{file}: {node.value}"] if re.search(r"\bmini(_dit)?\b", node.value) else []
    assert not told


# The page, and the package that it builds


def blocks() -> dict[str, str]:
    """Path -> content of every file of the package that the page shows."""
    shown = re.findall(r"^`(\S+)`:\n\n```\w+\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    return dict(shown)


def section(title: str) -> str:
    """The text below a heading of the page."""
    return PAGE.partition(f"\n## {title}")[2].partition("\n## ")[0]


def commands_of(text: str) -> list[list[str]]:
    """The words of every command in the shell blocks of a text."""
    shown = "".join(re.findall(r"^```bash\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))
    return [shlex.split(line) for line in shown.replace("\\\n", " ").splitlines()]


def test_the_page_shows_the_example_package():
    files = [file for file in EXAMPLE.rglob("*") if file.is_file() and "__pycache__" not in file.parts]
    there = {file.relative_to(EXAMPLE).as_posix(): file.read_text(encoding="utf-8") for file in files}
    assert blocks() == there


def test_every_kind_has_its_five_steps():
    others = ("In ten minutes", "The five steps", "The package")
    sections = [part for part in PAGE.split("\n## ")[1:] if not part.startswith(others)]
    assert len(sections) == 14
    for section in sections:
        assert re.findall(r"^(\d)\. ", section, re.MULTILINE) == ["1", "2", "3", "4", "5"], section[:20]


def test_an_estimator_from_a_folder_in_ten_minutes(tmp_path: Path):
    """The files of the section are written where it says; its test, its list and its run are as it says."""
    text = section("In ten minutes")
    named = re.findall(r"^\d\. The \w+, in `(\S+)`\..*?^```\w+\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert [name for name, _ in named] == ["my_estimator.py", "conf/estimator/alone.yaml", "test_my_estimator.py"]
    for name, content in named:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200", "PYTEST_ADDOPTS": ""}
    said = []
    for words in commands_of(text):
        assert words[0] == "python"
        command = [sys.executable, *words[1:]]
        answer = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert answer.returncode == 0, answer.stdout[-2000:] + answer.stderr[-2000:]
        said.append(answer.stdout)
    tested, listed, ran, judged = said
    assert "2 passed" in tested and re.search(r"estimator= *│ --config-dir conf *│ alone", listed)
    assert "attribution: projection, alone" in ran and "attribution.png" in ran
    assert re.search(r"^scores  .*predicted effects", judged, re.MULTILINE)


def test_the_settings_of_a_short_first_run_compose():
    (words,) = commands_of(section("The five steps"))
    assert words[:3] == ["python", "-m", "cad_exp"]
    config = resolve(composed(*words[3:]))
    assert config["edit"]["ratio"] and config["evaluation"]["fidelity"] is None


BARE = """
from cad_exp.attribution.estimators.base import Estimator
import torch

class Plain: ...
class Bare(Estimator): ...
class Tensors(Estimator):
    def _estimate(self, game, watch):
        return torch.zeros(game.n)
"""


@pytest.mark.parametrize(
    "name, told",
    [
        ("Plain", "its class has to derive from cad_exp.attribution.estimators.base.Estimator"),
        ("Gone", "cannot be loaded from bare_estimators:Gone"),
        ("Bare", "estimator Bare lacks the method _estimate"),
        ("Tensors", "estimator Tensors has to return Scores with 3 values, one per component"),
    ],
)
def test_an_estimator_that_is_not_finished_is_told_in_a_sentence(name: str, told: str, tmp_path: Path, monkeypatch):
    (tmp_path / "bare_estimators.py").write_text(BARE)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=re.escape(told)):
        make_estimator("mine", _target_=f"bare_estimators.{name}").estimate(Toy(lambda gates: gates.sum(-1), 3))


def test_a_broken_estimator_is_told_before_any_work():
    """Noisy latents of a large model take minutes, so nobody waits for them to learn of a misspelt class."""
    own = ["estimator=first_order", "+estimator._target_=no_such_module.Mine", "estimator.name=mine"]
    config = resolve(composed(*own))
    with pytest.raises(UserError, match="estimator 'no_such_module.Mine' cannot be loaded"):
        graph_of(config)


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> dict[str, str]:
    """The page's package, installed in a folder: the environment of commands that find it."""
    source, place = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("site")
    for name, content in blocks().items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(content, encoding="utf-8")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--target", str(place), str(source)], check=True, capture_output=True)
    shutil.rmtree(source)
    return {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{place}", "COLUMNS": "200"}


def typed(environment: dict[str, str], *arguments: str, folder: Path = ROOT) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "cad_exp", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def test_plugins_lists_what_the_package_adds(installed):
    said = typed(installed, "plugins").stdout
    theirs = [line for line in said.splitlines() if "cad-exp-example 0.1" in line]
    words = set(re.findall(r"[\w/]+", " ".join(theirs)))
    assert {
        "cosine",
        "half_way",
        "loudest",
        "shrink",
        "steer",
        "redness",
        "colour",
        "little",
        "classed",
        "slice",
        "nearest",
        "stripes",
        "generous",
        "descent",
        "loudness",
    } <= words
    assert {"concept", "red_church", "hydra/launcher", "one_by_one"} <= words
    assert "cannot be loaded" not in said and "claimed" not in said


def test_help_shows_the_options_of_the_package(installed):
    said = typed(installed, "--help").stdout
    assert "a church in front of red" in said and "python -m cad_exp plugins" in said


@pytest.mark.parametrize(
    "given, told",
    [
        ("concept=red_chruch", "did you mean red_church?"),
        ("edit=ster", "did you mean steer?"),
        ("hydra/launcher=one_by_won", "did you mean one_by_one?"),
        ("evaluation.metrics=[rednes]", "did you mean 'redness'?"),
        ("probe=neerest", "did you mean nearest?"),
        ("task=sae sae=generos", "did you mean generous?"),
        ("task=analyse analysis=lowdness", "did you mean loudness?"),
        ("task=sae sae.optimiser=decent", "did you mean 'descent'?"),
    ],
)
def test_a_misspelt_name_of_the_package_is_answered(installed, given: str, told: str, tmp_path: Path):
    answer = typed(installed, *given.split(), f"hydra.run.dir={tmp_path / 'run'}", folder=tmp_path)
    assert told in answer.stderr and answer.stderr.count("\n") == 1


RUNS = """
import io, json, sys
from contextlib import redirect_stdout
from pathlib import Path

import torch
from diffusers import DiffusionPipeline, UNet2DConditionModel

from cad_exp.config import options
from cad_exp.config.compose import hydra
from cad_exp.mini import PIPELINE
from cad_exp.pipeline.run import run
from tests.pictures import undrawn
from tests.warm import hasten

hasten()
folder, (fast, runs) = Path.cwd(), json.loads(sys.argv[1])
pipe = DiffusionPipeline.from_pretrained(PIPELINE)
torch.manual_seed(0)
pipe.unet = UNet2DConditionModel.from_config({**pipe.unet.config, "num_class_embeds": 3})
pipe.save_pretrained(folder / "classed_model")
told = {}
with redirect_stdout(io.StringIO()), undrawn():
    for name, overrides in runs.items():
        with hydra([options.conf_folder(), folder / "own", *options.installed()]) as composer:
            own = [] if any(each.startswith("granularity=") for each in overrides) else ["granularity=layer"]
            config = composer.job([*fast, *own, *overrides])
        told[name] = run(config, folder / name)
print(json.dumps({name: [each["run"], each["metrics"]] for name, each in told.items()}))
"""
FAST = ["edit=erase", "noisy_latents.samples=2", "noisy_latents.steps=2", "evaluation.samples=2"]
FAST += ["evaluation.retention_samples=1"]
FAST += ["model.steps=2", "evaluation.fid_bootstrap=40", "tracking.mode=disabled", "evaluation.fidelity=null"]
FAST += ["runtime.device=cpu", "runtime.cache=cache", "concept=red_church"]
OWN = ["model=little", "evaluation.metrics=[erasure,redness]"]
GATES = ["edit.strength=9", "edit.steps=3", "edit.trajectories=1", "edit.landing=1", "edit.instead=null"]
GATES += ["edit.retain=[tench]"]
DOTTED = ["+edit._target_=cad_exp_example.methods.Downhill", "+edit.rate=0.2"]
SPARSE = ["images.number=60", "sae.tokens=4096", "sae.width=64", "sae.seeds=1", "sae.controls=false"]
RUN = {
    "loudest": [*OWN, "objective=cosine", "estimator=half_way", "edit=loudest"],
    "shrink": [*OWN, "edit=shrink"],
    "steer": [*OWN, "edit=steer"],
    "still": [*OWN, "edit=steer", "edit.strength=0"],
    "downhill": [*OWN, *GATES, "edit=downhill"],
    "dotted": [*OWN, *GATES, "edit=greedy", "edit.name=mine", *DOTTED],
    "mine": ["model=little", "edit=none", "evaluation=none", "estimator=mine"],
    "slice": [*OWN, "granularity=slice", "granularity.number=2", "estimator=half_way"],
    "nearest": ["task=probe", "model=little", "images=stripes", "probe=nearest", "images.number=200"],
    "loudness": ["task=analyse", "model=little", "images=stripes", "analysis=loudness", "images.number=10"],
    "generous": ["task=sae", "sae=generous", "sae.k=4", "sae.times=3", *SPARSE],
    "classed": ["model=local", "model.path=classed_model", "judge=none", "evaluation=none", "estimator=half_way"],
}


@pytest.fixture(scope="module")
def ran(installed, tmp_path_factory) -> dict[str, list]:
    """What the package's own command lines measured: run -> [its facts, its metrics]."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "own" / "estimator").mkdir(parents=True)
    (folder / "own" / "estimator" / "mine.yaml").write_text("name: mine\n_target_: my_module.Mine\nlevel: 0.25\n")
    half_way = blocks()["cad_exp_example/estimator.py"]
    (folder / "my_module.py").write_text(half_way.replace("HalfWay", "Mine").replace("half_way", "mine"))
    command = [sys.executable, "-c", RUNS, json.dumps([FAST, RUN])]
    answer = subprocess.run(command, cwd=folder, env=installed, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr[-3000:]
    return json.loads(answer.stdout.splitlines()[-1])


def values(ran: dict[str, list], run: str, metric: str) -> dict[str, float]:
    return {each["variant"]: each["value"] for each in ran[run][1] if each["name"] == metric}


def test_a_run_of_the_packages_analysis(ran):
    """Loudness is a mean of absolute values, and the control stands beside it."""
    named = {each["name"] for each in ran["loudness"][1]}
    assert ran["loudness"][0]["verdict"]["loudest"].split(",")[0] in {name.partition("@")[2] for name in named}
    for name in named:
        found = values(ran, "loudness", name)
        assert set(found) == {"network", "random weights"} and min(found.values()) > 0


@pytest.mark.parametrize("run", ["loudest", "shrink", "steer", "downhill"])
def test_a_run_with_the_packages_model_judge_metric_and_methods(ran, run: str):
    redness = values(ran, run, "redness")
    assert redness["unedited"] == values(ran, "loudest", "redness")["unedited"]
    assert redness["edited"] != redness["unedited"] != redness["random"] != redness["edited"]
    assert set(values(ran, run, "concept_rate")) == {"unedited", "edited", "random"}
    rate = next(each for each in ran[run][1] if each["name"] == "concept_rate")
    assert rate["definition"]["judge"] == "brightness" and rate["definition"]["bright"] == 100
    assert ran[run][0]["config"]["edit"]["name"] == run


def test_the_packages_granularity_is_scored_and_edited(ran):
    """Two halves of each of the little model's projections; what the concept leaves open is as for neurons."""
    facts, metrics = ran["slice"]
    assert facts["granularity"] == "slice" and facts["config"]["granularity"]["number"] == 2
    assert facts["config"]["edit"]["ratio"] == 0.04 and facts["changed_weights"] > 0
    redness = values(ran, "slice", "redness")
    assert redness["edited"] != redness["unedited"]


def test_the_packages_probe_reads_the_packages_images(ran):
    """Standing and lying stripes have the same colours; their direction is read from the network."""
    facts, metrics = ran["nearest"]
    assert facts["probe"] == "nearest" and facts["images"] == "stripes" and facts["config"]["probe"]["order"] == 2.0
    best = {each["variant"]: each for each in metrics if each["name"] == "accuracy@direction"}
    assert best["network"]["value"] > 0.8 > best["pixels"]["value"]
    assert "a nearest probe" in best["network"]["definition"]["what"]


def test_the_packages_autoencoder_learns_by_its_optimiser(ran):
    """It has three times as many latents in training as afterwards, and explains more than the mean does."""
    facts, metrics = ran["generous"]
    assert facts["config"]["sae"]["times"] == 3 and facts["config"]["sae"]["optimiser"] == "descent"
    assert 3 < values(ran, "generous", "l0")["autoencoder"] <= 4
    assert values(ran, "generous", "fvu")["autoencoder"] < 1


def test_hooks_of_no_strength_change_nothing(ran):
    redness = values(ran, "still", "redness")
    assert redness["edited"] == redness["unedited"] == redness["random"]


def test_gates_of_a_class_named_by_its_dotted_path_are_the_same(ran):
    assert values(ran, "dotted", "redness") == values(ran, "downhill", "redness")


def test_a_class_of_a_folder_is_named_by_its_dotted_path(ran):
    assert ran["mine"][0]["config"]["estimator"] == {"name": "mine", "_target_": "my_module.Mine", "level": 0.25}
    assert ran["mine"][0]["estimator"] == "mine"


def test_the_packages_family_is_found_by_its_network(ran):
    assert ran["classed"][0]["config"]["model"]["path"] == "classed_model"
    assert ran["classed"][0]["changed_weights"] > 0
