"""The search on a run that is a formula: what it tries, what it remembers, what it calls best. Once on the real run."""

import json
import math
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.image import imread

from cad_exp.reporting.results import load_results
from cad_exp.utils import process
from cad_exp.utils.errors import UserError
from tests.cli.test_cli import ROOT
from tests.config.test_configs import composed
from tests.pipeline.test_experiment import FAST

pytest.importorskip("optuna", reason="no optuna: pip install -e '.[search]'")

from cad_exp.cli.search import HELP, main
from cad_exp.pipeline.search.plan import read
from cad_exp.pipeline.search.study import Study, queue
from cad_exp.reporting.pareto_front import front, rank


def metric(name: str, variant: str, value: float) -> dict:
    return {"name": name, "variant": variant, "value": value, "low": max(value - 0.1, 0), "high": min(value + 0.1, 1)}


def formula(config: dict, folder: Path) -> dict:
    """A larger ratio erases more and keeps less; ranking by layer costs more retention."""
    ratio, layer = config["edit"]["ratio"], config["edit"]["scope"] == "layer"
    rate = 1 / (1 + 30 * ratio)
    kept = 1 - ratio * (0.8 if layer else 0.4)
    values = {"unedited": (1.0, 1.0), "edited": (rate, kept), "random": (1.0, 1 - ratio / 5)}
    print("this goes into the log")
    return {
        "metrics": [
            metric(name, variant, pair[place])
            for place, name in enumerate(("concept_rate", "retention_mean"))
            for variant, pair in values.items()
        ]
    }


class Fake:
    """`formula`, which notes what it was asked, and can be told to raise at some calls."""

    def __init__(self, **raises: BaseException):
        self.calls: list[dict] = []
        self.raises = {int(call.lstrip("_")): error for call, error in raises.items()}

    def __call__(self, config: dict, folder: Path) -> dict:
        self.calls.append({**config["edit"], "estimator": config["estimator"]["name"], "config": config})
        if len(self.calls) - 1 in self.raises:
            raise self.raises[len(self.calls) - 1]
        return formula(config, folder)

    @property
    def tried(self) -> list[tuple]:
        return [(call["ratio"], call["scope"], call["estimator"]) for call in self.calls]


def content(folder: Path) -> dict:
    return json.loads((folder / "search.json").read_text())


POINTS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=12)


def beats(a: tuple, b: tuple) -> bool:
    return a[0] <= b[0] and a[1] >= b[1] and a != b


@given(POINTS)
def test_the_front_is_what_brute_force_finds(points: list[tuple]):
    expected = {point for point in points if not any(beats(other, point) for other in points)}
    found = front([cost for cost, _ in points], [gain for _, gain in points])
    assert [points[i] for i in found] == sorted(expected)
    assert all(points.index(points[i]) == i for i in found), "of equal points the first"


@given(POINTS.filter(bool), st.integers(0, 6), st.booleans())
def test_the_best_is_the_strongest_that_keeps_enough(points: list[tuple], bound: int, higher: bool):
    rows = [
        {"trial": i, "ratio": 0.1, "concept_rate": -cost if higher else cost, "retention": gain}
        for i, (cost, gain) in enumerate(points)
    ]
    on_front, best, closest = rank(rows, bound, higher)
    allowed = [point for point in points if point[1] >= bound]
    if allowed:
        assert closest is None and points[best["trial"]] == min(allowed, key=lambda point: (point[0], -point[1]))
        assert best["trial"] in [row["trial"] for row in on_front]
    else:
        assert best is None and points[closest["trial"]] == min(points, key=lambda point: (-point[1], point[0]))


def test_of_equal_edits_the_smaller_one_is_best():
    rows = [{"trial": i, "ratio": ratio, "concept_rate": 0.0, "retention": 0.96} for i, ratio in enumerate((0.3, 0.1))]
    on_front, best, _ = rank(rows, 0.95, False)
    assert best["trial"] == 1 and [row["trial"] for row in on_front] == [1]


def test_a_search_tries_what_the_space_holds_and_reports_the_front(tmp_path: Path, capsys):
    run, folder = Fake(), tmp_path / "study"
    arguments = ["concept=nudity", "trials=12", "retention=0.95", f"folder={folder}", "space.ratio=[0.01,0.4]"]
    assert main(arguments, run) == 0
    said = capsys.readouterr().out
    assert len(run.calls) == 12 and {call["scope"] for call in run.calls} <= {"layer", "global"}
    assert all(0.01 <= call["ratio"] <= 0.4 and call["ratio"] == float(f"{call['ratio']:.3g}") for call in run.calls)
    assert run.tried[0] == (0.3, "global", "first_order"), "the ordinary run's edit comes first"
    assert all(call["config"]["tracking"]["mode"] == "disabled" for call in run.calls)
    found, table = content(folder), pd.read_csv(folder / "pareto.csv")
    rates = {row["trial"]: (row["concept_rate"], row["retention"]) for _, row in table.iterrows()}
    allowed = [rate for rate, kept in rates.values() if kept >= 0.95]
    assert found["best"]["concept_rate"] == min(allowed) and found["best"]["retention"] >= 0.95
    assert [row["trial"] for row in found["front"]] == [
        trial
        for trial in sorted(rates, key=lambda t: rates[t])
        if not any(beats(other, rates[trial]) for other in rates.values())
    ]
    assert set(table[table.on_front].trial) == {row["trial"] for row in found["front"]}
    assert len(re.findall(r"^  \d+/12  trial \d+: ratio=.*concept rate .*retention ", said, re.M)) == 12
    assert f"trial {found['best']['trial']}" in said and found["commands"]["repeat"] in said
    assert "this goes into the log" not in said
    assert (folder / "trials" / "3" / "log.txt").read_text() == "this goes into the log\n"
    picture = imread(folder / "pareto.png")
    assert picture.shape[1] > 900 and picture.std() > 0.05
    assert {"optuna", "torch", "python"} <= set(found["versions"]) and found["seed"] == 0
    assert str(tmp_path) not in (folder / "pareto.csv").read_text()


def test_the_commands_name_the_best_edit_and_other_images(tmp_path: Path):
    own = ["concept=church", "granularity=head", "seed=3", "evaluation.samples=16"]
    assert main([*own, "trials=4", f"folder={tmp_path}"], Fake()) == 0
    found = content(tmp_path)
    repeat, fresh = (shlex.split(found["commands"][key])[3:] for key in ("repeat", "evaluate"))
    config, other = composed(*repeat), composed(*fresh)
    for made in (config, other):
        assert made["edit"]["ratio"] == found["best"]["ratio"] and made["edit"]["scope"] == found["best"]["scope"]
        assert made["noisy_latents"]["seed"] == 3 and made["evaluation"]["samples"] == 16
    assert config["seed"] == other["seed"] == 3
    assert config["evaluation"]["seed"] == 3 and other["evaluation"]["seed"] == 4


def test_the_same_command_goes_on_and_repeats_nothing(tmp_path: Path, capfd):
    whole, stopped, rest, more = Fake(), Fake(_3=KeyboardInterrupt()), Fake(), Fake()
    assert main(["trials=12", f"folder={tmp_path / 'a'}"], whole) == 0
    command = [f"folder={tmp_path / 'b'}"]
    assert process.run(lambda: main(["trials=6", *command], stopped)) == 130
    assert "stopped; the same command continues where it was" in capfd.readouterr().err
    assert main(["trials=6", *command], rest) == 0
    assert "trial 3 again:" in capfd.readouterr().out
    assert main(["trials=12", *command], more) == 0
    assert stopped.tried[:3] + rest.tried + more.tried == whole.tried and stopped.tried[3] == rest.tried[0]
    assert main(["trials=12", *command], nothing := Fake()) == 0 and nothing.calls == []
    assert [row["concept_rate"] for row in content(tmp_path / "a")["front"]] == [
        row["concept_rate"] for row in content(tmp_path / "b")["front"]
    ]


def test_another_seed_tries_others(tmp_path: Path):
    first, other = Fake(), Fake()
    main(["trials=4", f"folder={tmp_path / 'a'}"], first)
    main(["trials=4", "seed=1", f"folder={tmp_path / 'b'}"], other)
    assert first.tried[0] == other.tried[0] and first.tried[1:] != other.tried[1:]


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_a_killed_trial_is_run_again(tmp_path: Path):
    code = (
        "import os, signal\nfrom cad_exp.cli.search import main\n"
        "def run(config, folder): (folder / 'half').touch(); os.kill(os.getpid(), signal.SIGKILL)\n"
        f"main(['trials=2', 'folder={tmp_path}'], run)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, timeout=120).returncode == -9
    assert (tmp_path / "trials" / "0" / "half").exists()
    run = Fake()
    assert main(["trials=2", f"folder={tmp_path}"], run) == 0
    assert len(run.calls) == 2 and run.tried[0][0] == 0.3
    assert (tmp_path / "trials" / "0" / "half").exists()  # no run says that it made this file, so no run removes it


def test_a_search_is_refused_where_other_files_lie(tmp_path: Path, capsys):
    (tmp_path / "trials" / "0").mkdir(parents=True)
    (tmp_path / "trials" / "0" / "notes.txt").write_text("mine")
    assert main(["trials=1", f"folder={tmp_path}"], Fake()) == 1
    assert "holds other files ('trials')" in capsys.readouterr().err
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["notes.txt"]


def test_two_processes_share_a_study(tmp_path: Path):
    space = {"ratio": (0.01, 0.5), "scope": ["layer", "global"]}
    default = {"ratio": 0.3, "scope": "global"}
    one, two = (Study(tmp_path, space, {}, default, 0, 0.95, False) for _ in range(2))
    with one.claim(2) as first:
        with two.claim(2) as second:
            assert (first.number, second.number) == (0, 1) and not second.again
            with one.claim(2) as third:
                assert third is None
    with two.claim(2) as again:  # given up without a result
        assert again.number == 0 and again.again and again.parameters == first.parameters


def test_a_failing_trial_is_recorded_and_the_others_run(tmp_path: Path, capsys):
    run = Fake(_1=UserError("no [luck]: try another"))
    assert main(["trials=5", f"folder={tmp_path}"], run) == 0
    said = capsys.readouterr().out
    assert "failed: no [luck]: try another" in said and "1 of 5 trials failed" in said
    [failed] = content(tmp_path)["trials"]["failed"]
    assert failed["trial"] == 1 and failed["error"] == "no [luck]: try another"
    assert content(tmp_path)["trials"]["finished"] == 4


def test_a_trial_for_which_the_memory_does_not_suffice_has_failed(tmp_path: Path, capsys):
    full = type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory")  # torch's class by its name
    assert main(["trials=3", f"folder={tmp_path}"], Fake(_1=full)) == 0
    assert "failed: the GPU's memory does not suffice: choose a smaller runtime.batch_size" in capsys.readouterr().out
    [failed] = content(tmp_path)["trials"]["failed"]
    assert "evaluation.batch_size" in failed["error"] and content(tmp_path)["trials"]["finished"] == 2
    with pytest.raises(ZeroDivisionError):
        main(["trials=1", f"folder={tmp_path / 'other'}"], Fake(_0=ZeroDivisionError()))


WEIGHTS = ["granularity=weight", "edit.scope=layer", "edit.ratio=0.1"]


@pytest.mark.parametrize(
    "arguments, expected",
    [
        ([*WEIGHTS, "space.estimator=[shapley,first_order]"], "space.estimator holds shapley, which cannot work: "),
        ([*WEIGHTS, "space.estimator=[shapley]"], "estimator=shapley is not for granularity=weight: use "),
        (["space.factor=[0,-50000]"], "space.factor holds -50000, which cannot work: edit.factor=-50000 is out of"),
        (["edit.ratio=0.1", "concept=church", "concept.label=chruch"], "did you mean 'church'?"),
    ],
)
def test_what_can_never_work_is_refused_before_the_first_trial(arguments: list[str], expected: str, tmp_path, capsys):
    run = Fake()
    assert main([*arguments, f"folder={tmp_path / 'study'}"], run) == 1
    said = capsys.readouterr()
    assert not run.calls and not list(tmp_path.iterdir()) and not said.out
    assert said.err.count("\n") == 1 and expected in said.err


def test_what_can_never_work_is_left_out_of_all_estimators(tmp_path: Path, capsys):
    run = Fake()
    assert main([*WEIGHTS, "space.estimator=null", "trials=40", f"folder={tmp_path}"], run) == 0
    said = capsys.readouterr()
    assert {"shapley", "leave_one_out"}.isdisjoint(call["estimator"] for call in run.calls) and len(run.calls) > 3
    assert "estimator shapley is not searched: estimator=shapley is not for granularity=weight" in said.err
    assert not content(tmp_path)["trials"]["failed"] and "shapley" not in content(tmp_path)["space"]["estimator"]


def test_two_values_that_cannot_work_together_are_named(tmp_path: Path, capsys):
    """Each works with another: the sampler draws them apart, so such a pair cannot be left out."""
    own = tmp_path / "own" / "estimator"
    own.mkdir(parents=True)
    (own / "patches.yaml").write_text("name: activation_patching\ndirection: denoising\nfirst_order: true\n")
    space = ["space.estimator=[patches,first_order]", "space.objective=[erase,projection]", "edit.ratio=0.1"]
    run = Fake()
    assert main([f"--config-dir={own.parent}", *space, f"folder={tmp_path / 'study'}"], run) == 1
    said = capsys.readouterr().err
    assert "cannot work together, edit.scope=layer with estimator=patches with objective=erase: " in said
    assert "flat at the base prompt's run" in said and not run.calls


def test_a_command_that_only_fails_ends_early(tmp_path: Path, capsys):
    run = Fake(**{f"_{i}": UserError("no such model") for i in range(9)})
    assert main(["trials=9", f"folder={tmp_path}"], run) == 1 and len(run.calls) == 3
    assert "the first 3 trials all failed" in capsys.readouterr().err


def test_a_run_without_the_objectives_is_a_failed_trial(tmp_path: Path, capsys):
    assert main(["trials=1", f"folder={tmp_path}"], lambda config, folder: {"metrics": []}) == 1
    assert "measured no concept_rate" in capsys.readouterr().out
    assert content(tmp_path)["front"] == []


def test_when_no_edit_keeps_enough_the_closest_is_named(tmp_path: Path, capsys):
    assert main(["trials=5", "retention=1", f"folder={tmp_path}"], Fake()) == 0
    found, said = content(tmp_path), capsys.readouterr().out
    assert found["best"] is None
    assert found["closest"]["retention"] == max(pd.read_csv(tmp_path / "pareto.csv")["retention"])
    assert f"none of 5 edits keeps 1: trial {found['closest']['trial']} comes closest" in said


def test_a_finite_space_is_tried_whole_and_once(tmp_path: Path):
    run = Fake()
    space = [
        "space.ratio=0.1",
        "space.scope=[layer,global]",
        "estimator=first_order",
        "space.factor=[0,-1]",
        "space.objective=erase",
    ]
    assert main(["trials=30", f"folder={tmp_path}", *space], run) == 0
    assert sorted((c["scope"], c["factor"], c["config"]["objective"]["name"]) for c in run.calls) == [
        (scope, factor, "erase") for scope in ("global", "layer") for factor in (-1, 0)
    ]


@pytest.mark.parametrize(
    "arguments, left",
    [
        (["edit.ratio=0.1"], {"scope", "estimator"}),
        (["edit.scope=layer"], {"ratio", "estimator"}),
        (["granularity.scope=layer"], {"ratio", "estimator"}),
        (["estimator=first_order"], {"ratio", "scope"}),
        (["edit.count=3"], {"estimator"}),
        (["granularity=layer"], {"ratio", "scope", "estimator"}),
    ],
)
def test_what_a_command_fixes_is_not_searched(arguments: list[str], left: set[str]):
    assert set(read(arguments).space) == left


def test_scopes_are_those_of_the_granularity():
    assert set(read(["granularity=weight"]).space["scope"]) == {"row", "layer", "global"}
    assert read(["granularity=layer"]).space["scope"] == ["global"]


def test_estimators_are_those_that_exist():
    from cad_exp.attribution.estimators import ESTIMATORS

    assert set(read([]).space["estimator"]) < set(ESTIMATORS)
    presets = {"ablated_gradients_full"}
    assert set(read(["space.estimator=null"]).space["estimator"]) == set(ESTIMATORS) | presets


def test_the_folder_follows_from_the_settings_and_not_from_the_number_of_trials():
    name = read(["concept=church"]).folder
    assert name.parent == Path("outputs/search") and name.name.startswith("church-neuron-")
    assert name == read(["concept=church", "trials=90", "tracking=offline"]).folder
    others = (["seed=1"], ["retention=0.9"], ["space.ratio=[0.1,0.2]"], ["evaluation.samples=3"])
    assert len({name, *(read(["concept=church", *other]).folder for other in others)}) == 5


def test_a_folder_of_other_settings_is_refused(tmp_path: Path, capsys):
    assert main(["trials=1", f"folder={tmp_path}"], Fake()) == 0
    assert main(["trials=1", f"folder={tmp_path}", "model.steps=5"], Fake()) == 1
    assert "other settings (model.steps was 12, now 5)" in capsys.readouterr().err


def test_amplifying_wants_a_high_rate(tmp_path: Path):
    assert main(["edit=amplify", "trials=6", "retention=0.5", f"folder={tmp_path}"], Fake()) == 0
    table = pd.read_csv(tmp_path / "pareto.csv")
    assert content(tmp_path)["best"]["concept_rate"] == table[table.keeps_enough].concept_rate.max()


def test_own_configs_take_part(tmp_path: Path):
    (tmp_path / "mine" / "concept").mkdir(parents=True)
    text = "defaults: [_object, _self_]\nname: teapot\nnoun: church\n"
    (tmp_path / "mine" / "concept" / "teapot.yaml").write_text(text)
    plan = read(["--config-dir", str(tmp_path / "mine"), "concept=teapot"])
    assert plan.config["concept"]["name"] == "teapot" and "--config-dir=" in plan.command({"ratio": 0.1})


def test_the_queue_starts_with_the_default_where_the_space_holds_it():
    default = {"ratio": 0.3, "scope": "global"}
    assert queue({"ratio": (0.1, 0.5), "scope": ["layer", "global"]}, default) == ([default], None)
    assert queue({"ratio": (0.1, 0.2), "scope": ["global"]}, default) == ([], None)
    first, number = queue({"scope": ["layer", "global"]}, default)
    assert first == [{"scope": "global"}, {"scope": "layer"}] and number == 2


@pytest.mark.parametrize(
    "arguments, expected",
    [
        (["trails=3"], "did you mean trials?"),
        (["concpt=church"], "did you mean concept?"),
        (["concept=nudty"], "did you mean nudity?"),
        (["edit.ratoi=0.1"], "did you mean ratio?"),
        (["space.ratoi=0.1"], "did you mean ratio?"),
        (["space={ratio:0.1}"], "unknown setting in space"),
        (["space.scope=[gobal]"], "did you mean 'global'?"),
        (["space.scope=[row]"], "There are: layer, global"),
        (["space.scope=[]"], "is empty"),
        (["space.estimator=[first]"], "did you mean 'first_order'?"),
        (["space.ratio=[0.5,0.1]"], "the lowest and the highest"),
        (["space.ratio=[0.1,0.2,0.3]"], "the lowest and the highest"),
        (["space.factor=[a]"], "must hold numbers"),
        (["edit.ratio=0.1", "space.ratio=[0.1,0.2]"], "give one of the two"),
        (["trials=0"], "use 1 to 1,000,000"),
        (["trials=inf"], "trials=inf is no number of trials"),
        (["trials=nan"], "trials=nan is no number of trials"),
        (["trials=10000000000000000000000"], "use 1 to 1,000,000"),
        (["folder=[a]"], "is no folder: name one"),
        (["task=probe"], "task=probe edits nothing"),
        (["edit=erase", "edit.strength=auto"], "edit.strength=auto finds its own ratio"),
        (["trials=many"], "not a number"),
        (["retention=95"], "0 to 1"),
        (["concept=church,tench"], "one value of each setting"),
        (["concept=custom"], 'concept.prompt="..."'),
        (["concept=custom", "concept.prompt=a teapot"], "give concept.kind and concept.label"),
        (["model=local"], 'model.path="..."'),
        (["model.judge=null"], "needs a judge"),
        (["edit=none"], "edit=erase"),
        (["evaluation.metrics=[erasure]"], "name both"),
        (["hydra.run.dir=here"], "folder="),
        (["-m"], "unknown flag '-m'"),
        (["church"], "church=VALUE"),
        (["concept.prompt=it's"], """'concept.prompt="it'"'"'s"'"""),
        (["--config-dir", "nowhere"], "no folder 'nowhere'"),
        (["--config-dir"], "expected one argument"),
    ],
)
def test_a_wrong_command_gets_one_line(arguments: list[str], expected: str, capsys):
    assert main(arguments, Fake()) == 2
    said = capsys.readouterr()
    assert not said.out and said.err.startswith("error: ") and said.err.count("\n") == 1 and expected in said.err


def test_without_optuna_one_sentence_says_what_to_install(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert main(["trials=1", f"folder={tmp_path}"], Fake()) == 1
    assert "pip install 'cad-exp[search]'" in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_help_and_mistakes_need_no_torch():
    code = (
        "import sys\nfrom cad_exp.cli.search import main\n"
        "assert main(['--help']) == 0 and main(['trails=3']) == 2\n"
        "assert main(['granularity=weight', 'space.estimator=[shapley]']) == 1\n"
        "sys.exit(bool({'torch', 'matplotlib'} & set(sys.modules)))"
    )
    answer = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    assert max(map(len, HELP.splitlines())) <= 120


@pytest.mark.slow
def test_the_best_edit_repeats_as_an_ordinary_run(tmp_path: Path):
    from cad_exp.pipeline.run import run

    cache = f"runtime.cache={tmp_path / 'cache'}"
    command = ["concept=nudity", "granularity=neuron", *FAST, "edit.factor=-1", cache]
    assert main([*command, "trials=4", "retention=0.5", f"folder={tmp_path / 'study'}"]) == 0
    found = content(tmp_path / "study")
    repeat = [a for a in shlex.split(found["commands"]["repeat"])[3:] if a != cache]
    run(composed(*repeat, f"runtime.cache={tmp_path / 'another'}"), tmp_path / "again")
    again = {(m["name"], m["variant"]): m for m in load_results(tmp_path / "again")["metrics"]}
    best = found["best"] or found["closest"]
    for name, key in (("concept_rate", "concept_rate"), ("retention_mean", "retention")):
        for end in ("value", "low", "high"):
            assert again[name, "edited"][end] == best[key if end == "value" else f"{key}_{end}"]
        assert again[name, "random"]["value"] == best[f"random_{key}"]
    assert all(math.isfinite(row["seconds"]) for row in found["front"])
    edits = [tmp_path / "study" / best["folder"] / "edit.safetensors", tmp_path / "again" / "edit.safetensors"]
    assert edits[0].read_bytes() == edits[1].read_bytes()
