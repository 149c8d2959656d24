"""`model.erased`: a run on a model that overrides erase first. The rules of the key, and the runs."""

import json
import shlex
import shutil
from pathlib import Path

import pytest

from cad_exp.config.effective import asked
from cad_exp.config.expand import runs
from cad_exp.config.resolve import resolve
from cad_exp.data.prompts import plan as requests_of
from cad_exp.data.prompts.sources import FOLDER
from cad_exp.evaluation.judge_sources import wanted
from cad_exp.interventions.edit import Edit
from cad_exp.interventions.selection import random_edit
from cad_exp.mini import CLIP
from cad_exp.pipeline import preflight
from cad_exp.pipeline.cache.store import Cache
from cad_exp.pipeline.identity import run_identity
from cad_exp.pipeline.run import run
from cad_exp.reporting.tables.plan import plan
from cad_exp.utils.errors import UserError
from tests.cli.test_cli import cad
from tests.config.test_configs import composed
from tests.data.test_prompts import written
from tests.pictures import undrawn
from tests.pipeline.test_experiment import FAST
from tests.reporting.test_nudity_table import I2P

SMALL = ["granularity=head", "noisy_latents.samples=2", "noisy_latents.steps=4"]
UCE = ["edit=uce", "edit.tokens=all"]
CAD = ["edit=erase", "edit.ratio=0.3", *SMALL]


def erased(*overrides: str) -> str:
    """The key with these overrides, as Hydra takes it."""
    return f"model.erased=[{','.join(repr(item) for item in overrides)}]"


def test_the_erasing_run_is_the_runs_own_but_for_the_overrides():
    config = resolve(composed("concept=van_gogh", "seed=3", "edit=amplify", "granularity=weight", erased("edit=esd")))
    first = config["model"]["erased"]
    assert first["edit"]["prompt"] == config["concept"]["prompt"] and first["edit"]["seed"] == 3
    assert first["objective"] == {"name": "none"} and config["objective"]["name"] == "amplify"
    assert resolve(config) is config, "it is resolved once"
    first = resolve(composed("seed=3", "model.steps=5", "concept.prompt=a dog", erased("edit=erase")))["model"][
        "erased"
    ]
    plain = resolve(composed("seed=3", "model.steps=5", "concept.prompt=a dog", "edit=erase"))
    assert all(first[group] == plain[group] for group in first) and first["granularity"]["name"] == "neuron"
    bare = resolve(composed("edit=amplify", erased("edit=cad_public")))
    assert (bare["model"]["erased"]["concept"]["prompt"], bare["concept"]["prompt"]) == ("naked", "naked person")
    assert resolve(composed("model.erased=[]"))["model"]["erased"] is None


def test_the_overrides_count_in_hash_and_identity(tmp_path: Path):
    def both(*overrides: str) -> tuple[str, str]:
        config = resolve(composed("edit=amplify", *overrides))
        return asked(config), run_identity(config)

    found = [both(), both(erased("edit=uce")), both(erased(*UCE)), both(erased("edit=erase"))]
    assert len(set(found)) == 4
    assert both(erased("edit=uce", "edit.tokens=subject")) == found[1], "what is the default changes nothing"
    file = tmp_path / "weights.pt"
    identities = []
    for content in (b"one", b"two"):
        file.write_bytes(content)
        identities.append(both(erased("edit=checkpoint", f"edit.path={file}"))[1])
    assert len(set(identities)) == 2


def test_the_erasing_runs_judges_count_and_are_asked_for(tmp_path: Path):
    """CLIP judges nothing but the erasing run's objective; without it there is another identity, and no run."""
    shutil.copytree(CLIP, tmp_path / "clip")
    given = ["judge=real", f"judge.clip.weights={tmp_path / 'clip'}", "evaluation=none", "edit=amplify"]
    config = resolve(composed(*given, erased("edit=erase", "objective=clip")))
    assert wanted(config) == [] and [wanted(each) for each in runs(config)] == [[], ["clip"]]
    preflight.check(config)
    before = run_identity(config)
    (tmp_path / "clip" / "vocab.json").write_text("{}")
    assert run_identity(config) != before
    (tmp_path / "clip" / "config.json").unlink()
    for stopped in (preflight.check, run_identity):
        with pytest.raises(UserError, match=r"judge\.clip\.weights"):
            stopped(config)


@pytest.mark.parametrize(
    "overrides, said",
    [
        (["edit=uec"], "model.erased: unknown edit 'uec': did you mean uce"),
        (["egit=uce"], "unknown setting in model.erased 'egit': did you mean 'edit'"),
        (["edit=uce", "edit.tokns=all"], "model.erased: unknown setting in edit 'tokns'"),
        (["edit=uce", "edit.ratio=0.1"], "model.erased: edit=uce chooses no components"),
        (["edit=checkpoint", "edit.path=nowhere"], "model.erased: there is no file of weights 'nowhere'"),
        (["edit=checkpoint"], "model.erased: edit.path has no value"),
        (["edit=none"], "model.erased: edit=none erases nothing"),
        (["edit=uce,rece"], "'edit=uce,rece' is several edits: with -m, give several lists"),
        (["model.erased=[]"], "model.erased cannot hold another model.erased: save the first edit"),
        (["concept=church"], "cannot hold 'concept=church': the model is erased for this run's own concept"),
        (["model.steps=2"], "cannot hold 'model.steps=2': the model is erased for this run's own model"),
        (["seed=1"], "cannot hold 'seed=1': the model is erased for this run's own seed"),
        (["runtime.device=cpu"], "cannot hold 'runtime.device=cpu': the model is erased for this run's own runtime"),
        (["evaluation=erasure"], "cannot hold 'evaluation=erasure': no images are made of it"),
    ],
)
def test_wrong_overrides_are_refused_with_a_reason(overrides: list[str], said: str):
    with pytest.raises(UserError) as caught:
        resolve(composed("edit=amplify", erased(*overrides)))
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_one_override_is_a_list_of_one_and_a_mapping_is_refused():
    assert resolve(composed("model.erased='edit=uce'")) == resolve(composed(erased("edit=uce")))
    with pytest.raises(UserError, match=r"must be a list of overrides.*\['edit=uce'"):
        resolve(composed("model.erased={edit:uce}"))


@pytest.mark.parametrize("overrides", [UCE, CAD], ids=["replaced", "scored"])
def test_it_is_the_two_steps_in_one(overrides: list[str], tmp_path: Path):
    """Bit for bit what the erasing run and then model.edits give; its stages are made once for both."""

    def go(folder: str, *more: str) -> dict:
        few = [*FAST, "concept=church", "evaluation.samples=2"]
        with undrawn():
            return run(composed(*few, f"runtime.cache={tmp_path / 'c'}", *more), tmp_path / folder)

    recall = [*SMALL, "edit=amplify", "evaluation=erasure", "evaluation.fidelity=null"]
    first = go("first", "evaluation=none", *overrides)
    kinds = ("replacements", "attribution")
    entries = sorted(path.name for stage in kinds for path in (tmp_path / "c" / stage).glob("*"))
    two = go("two", *recall, f"model.edits=[{tmp_path / 'first' / 'edit.safetensors'}]")
    one = go("one", *recall, erased(*overrides))
    assert one["metrics"] == two["metrics"] and {item["variant"] for item in one["metrics"]} >= {"unedited", "random"}
    for name in ("attribution.safetensors", "edit.safetensors", "noisy_latents.safetensors"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    made = Edit.load(tmp_path / "one" / "erased.safetensors")
    assert made.digest() == Edit.load(tmp_path / "first" / "edit.safetensors").digest()
    said = json.loads((tmp_path / "one" / "results.json").read_text())["run"]["erased"]
    assert said["edit"] == first["run"]["config"]["edit"]
    assert said["changed_weights"] == first["run"]["changed_weights"] > 0
    now = sorted(path.name for stage in kinds for path in (tmp_path / "c" / stage).glob("*"))
    assert set(entries) <= set(now) and len(now) == len(entries) + 2, "one attribution for each way, no new erasing"


def test_a_run_that_was_stopped_erases_no_second_time(tmp_path: Path, monkeypatch, capsys):
    config = composed(*FAST, *SMALL, "edit=amplify", "evaluation=none", erased(*CAD), f"runtime.cache={tmp_path / 'c'}")
    with undrawn():
        whole = run({**config, "runtime": {**config["runtime"], "cache": None}}, tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr("cad_exp.pipeline.run_attribute.make_edits", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run(config, tmp_path / "again")
    made: list[str] = []
    make = Cache._make
    monkeypatch.setattr(
        Cache, "_make", lambda self, place, *rest: (made.append(place.parent.name), make(self, place, *rest))
    )
    drawn: list[Edit] = []
    monkeypatch.setattr(
        "cad_exp.interventions.selection.random_edit",
        lambda edit, *rest: (drawn.append(edit), random_edit(edit, *rest))[1],
    )
    with undrawn():
        again = run(config, tmp_path / "again")
    assert len(drawn) == 1, "a random edit is for comparison, and the erasing run compares nothing"
    assert sorted(made) == ["attribution", "images", "noisy_latents"], "of the amplifying run alone"
    assert "erased" in again["run"] and again["run"]["erased"] == whole["run"]["erased"]
    for name in ("erased.safetensors", "edit.safetensors"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_sweep_over_lists_also_with_ones_own_options(tmp_path: Path):
    (tmp_path / "mine" / "edit").mkdir(parents=True)
    (tmp_path / "mine" / "edit" / "mine.yaml").write_text("# mine\ndefaults: [uce, _self_]\nlamb: 0.5\n")
    lists = [erased(*each).partition("=")[2] for each in (["edit=mine"], ["edit=mien"])]
    fixed = ["--config-dir=mine", "concept=church", "edit=amplify", *FAST, *SMALL, "evaluation=none"]
    given = ["-m", *fixed, f"model.erased={','.join(lists)}", "hydra.sweep.dir=sweep"]
    answer = cad(*given, folder=tmp_path, timeout=300, libraries="torch", pictures=False)
    assert answer.returncode == 1 and "1 of 2 jobs failed" in answer.stderr
    assert "model.erased: unknown edit 'mien': did you mean mine?" in answer.stderr
    [made] = [json.loads(path.read_text())["run"] for path in (tmp_path / "sweep").glob("*/results.json")]
    assert made["erased"]["edit"]["name"] == "uce" and made["erased"]["edit"]["lamb"] == 0.5


def test_the_recall_study_is_planned_as_its_jobs_compose():
    made = plan(["experiment=recall"])
    methods = {"uce", "rece", "esd", "conceptprune", "erase"}
    assert {(j.config["concept"]["name"], j.config["model"]["erased"]["edit"]["name"]) for j in made.jobs} == {
        (concept, method) for concept in ("church", "nudity") for method in methods
    }
    for each in made.jobs[::4]:
        typed = shlex.split(made.command(each))[3:]
        assert resolve(composed(*typed)) == each.config


def test_published_checkpoints_are_recalled_by_the_papers_command(tmp_path: Path, monkeypatch):
    given = ["model=sd14", "judge=real", "concept=nudity", "prompts=i2p", "evaluation.metrics=[erasure]"]
    given += ["model.erased=null"]
    monkeypatch.setenv(FOLDER, str(tmp_path))
    written(tmp_path, I2P, "i2p_benchmark.csv")
    made = plan(["experiment=recall", *given, "model.weights=esd.pt,uce.safetensors", "study.rows=[model.weights]"])
    assert [each.config["model"]["weights"] for each in made.jobs] == ["esd.pt", "uce.safetensors"]
    assert made.study.rows == ("model.weights",)
    assert all(
        each.config["model"]["erased"] is None and each.config["edit"]["name"] == "amplify" for each in made.jobs
    )
    for each in made.jobs:
        assert [(request.prompt, request.seed) for request in requests_of(each.config)] == [
            ("a portrait", 7),
            ("a statue", 8),
        ]
        assert wanted(each.config) == ["nudenet"]
