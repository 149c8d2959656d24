"""Commands as they are typed and printed, and one sentence for whatever is wrong with them. No torch is needed here."""

import json
import os
import shlex
import signal
import subprocess
import sys
import types
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import example, given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from cad_exp.__main__ import main
from cad_exp.config import commands, search_path
from cad_exp.utils.errors import UserError
from tests import warm
from tests.cli.test_cli import ROOT, fake, fake_run  # noqa: F401

WORDS_OF_OTHERS = (
    "Traceback",
    "unexpected",
    "mismatched",
    "extraneous",
    "no viable",
    "Lexer",
    "DictConfig",
    "full_key",
)
TEXTS = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0")) | st.text(
    "ab'\"\\${}[](),=: ~#!%&|;\n"
)


def back(command: str) -> list[tuple[str, object]]:
    """The keys and values that a printed command gives after the shell, Hydra and OmegaConf have read it."""
    parsed = OverridesParser.create().parse_overrides(shlex.split(command)[3:])
    values = [OmegaConf.to_container(OmegaConf.create({"it": item.value()}), resolve=True) for item in parsed]
    return [(item.key_or_group, value["it"]) for item, value in zip(parsed, values, strict=True)]


@example("\\\n", [], 0.0, 0, None)
@given(TEXTS, st.lists(TEXTS, max_size=3), st.floats(allow_nan=False), st.integers(), st.none() | st.booleans())
def test_what_is_printed_gives_the_same_values(text, texts, real, whole, word):
    given = [("concept.prompt", text), ("a.b", texts), ("c", real), ("d", whole), ("e", word)]
    assert back(commands.shell("cad_exp", [commands.override(*each) for each in given])) == given


def test_plain_values_are_printed_plainly():
    printed = [commands.text(value) for value in ("a/b-c.d", "a b", "it's", "null", "3", 0.25, None, ["a", "b c"], "")]
    assert printed == ["a/b-c.d", '"a b"', '"it\'s"', '"null"', '"3"', "0.25", "null", '[a,"b c"]', '""']
    assert commands.text("${x}") == '"\\${x}"' and commands.quoted("${x}") == '"${x}"'


@pytest.fixture
def typed(tmp_path: Path, monkeypatch, capsys):
    """Type a command in this process, in an empty folder, with a run that only notes its config."""
    module, done = types.ModuleType("cad_exp.pipeline.run"), []
    module.execute = lambda config, graph, folder: done.append((config, folder))
    monkeypatch.setitem(sys.modules, "cad_exp.pipeline.run", module)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["cad_exp"])

    def run(*arguments: str):
        done.clear()
        code = main(list(arguments))
        said = capsys.readouterr()
        return types.SimpleNamespace(code=code, out=said.out, err=said.err, done=list(done))

    return run


def sentence(answer, *expected: str, code: int = 2) -> None:
    assert answer.code == code and answer.err.startswith("error: ") and answer.err.count("\n") == 1, answer.err
    assert not [word for word in WORDS_OF_OTHERS if word in answer.err], answer.err
    assert all(text in answer.err for text in expected), answer.err


@pytest.mark.parametrize(
    "prompt",
    ["a red, round ball", "it's", 'a "big', "a=b", "a {b", "[a", "[a] b", "a (b", "#a", "été!", "a & b; c | d", "a ${b",
     "foo(a)", "int(a)", "'", "a\\', b"],
)  # fmt: skip
def test_a_prompt_that_needs_quotes_is_answered_with_how_to_type_it(prompt: str, typed):
    answer = typed("concept=custom", f"concept.prompt={prompt}")
    sentence(answer, "concept.prompt")
    [pasted] = shlex.split(answer.err.partition("quotes: ")[2])
    again = typed("concept=custom", pasted)
    assert again.code == 0 and again.done[0][0]["concept"]["prompt"] == prompt


@pytest.mark.parametrize(
    "arguments, expected",
    [
        (["--cfg"], "--cfg"),
        (["--cfg", "nope"], "'job', 'hydra', 'all'"),
        (["--cfg", "job", "-m"], "leave out -m"),
        (["-r", "-m"], "leave out --run"),
        (["--resolve"], "--cfg job --resolve"),
        (["--package", "concept"], "--cfg job --package"),
        (["--cfg", "job", "--package", "nope"], "package 'nope' not found in config"),
        (["--info", "nope"], "searchpath"),
        (["--experimental-rerun", "x"], "not offered"),
        (["-cn", "search"], "--config-dir"),
        (["-cp", "/tmp"], "--config-dir"),
        (["--shell-completion"], "not offered"),
        (["--versoin"], "did you mean --version?"),
        (["-x"], "unknown flag '-x'"),
        (["--config-dir"], "--config-dir"),
        (["--config-dir", "a=b"], "no folder 'a=b'"),
        (["-m", "hydra.mode=RUN"], "contradict"),
        (["hydra.mode=x"], "RUN, MULTIRUN"),
        (["-m", "seed=interval(0,1)"], "range(0,3)"),
        (["seed=range(3)"], "add -m"),
        (["edit.ratio=0.1,0.2"], "add -m"),
        (["~concept"], "every run needs"),
        (["~concept.nope"], "nothing to leave out"),
        (["~edit.retain"], "nothing to leave out: edit.retain is null already"),
        (["evaluation=none", "evaluation.fidelity.number=3"], "'evaluation.fidelity' is null in this command"),
        (["evaluation.fidelity.images.samples=3"], "'evaluation.fidelity.images' is null, it has no settings"),
        (["edit=erase", "edit.instead=fish"], "edit=greedy, hard_concrete, joint have it"),
        (["edit=erase", "edit.lowest=-1"], "edit=joint has it"),
        (["~concept.name"], "concept.name is missing"),
        (["+concept=church"], "a run has one"),
        (["concept@foo=church"], "a run has one"),
        (["concept=null"], "unknown concept 'null'"),
        (["concept=1"], "unknown concept '1'"),
        (["concept={a:1}"], "unknown concept"),
        (["concept="], "unknown concept ''"),
        (["concept=../x"], "unknown concept '../x'"),
        (["concept=/etc/passwd"], "unknown concept '/etc/passwd'"),
        (["concept=_object"], "concept.name is missing"),
        (["=3"], "names no setting"),
        (["+"], "no setting"),
        (["~"], "names no setting"),
        ([""], "no setting"),
        (["concept church"], "no setting"),
        (["concept==church"], "no setting"),
        (["concept..name=1"], "no setting"),
        (["edit.kinds[0]=a"], "no setting"),
        (["concept.prompt=a\nb"], "line break"),
        (["concept.label=${nope}"], "concept.label refers to 'nope'"),
        (["concept.label=${concept.label}"], "leads nowhere"),
        (["concept.label=${oc.env:NOT_SET}"], "NOT_SET"),
        (["concept.label=${nope:1}"], "leads nowhere"),
        (["hydra=1"], "hydra.run.dir"),
        (["hydra.run=1"], "'hydra.run=1'"),
        (["hydra.run.dir=${nope}"], "'nope'"),
        (["hydra.run.dir="], "hydra.run.dir is empty"),
        (['hydra.run.dir=" "'], "hydra.run.dir is empty"),
        (["hydra.run.dir=null"], "hydra.run.dir is empty"),
        (["-m", 'hydra.sweep.dir=""'], "hydra.sweep.dir is empty"),
        (["-m", "hydra.sweep.subdir="], "hydra.sweep.subdir is empty"),
        (["hydra/foo=1"], "unknown setting"),
        (["hydra/job_logging=none"], "hydra settings"),
        (["hydra.searchpath=[/nope]"], "no folder '/nope'"),
        (["model.erased=[edit=uce]"], """'model.erased=["edit=uce"]'"""),
    ],
)
def test_an_odd_command_gets_one_sentence(arguments: list[str], expected: str, typed):
    answer = typed(*arguments)
    sentence(answer, expected)
    assert not answer.out and not answer.done


def test_keys_may_be_left_out_and_added(typed):
    assert "bare" not in typed("~concept.bare", "concept=nudity").done[0][0]["concept"]
    assert typed("+concept.new=1", "concept.name=mine").done[0][0]["concept"]["new"] == 1
    sentence(typed("+concept.new=1"), "unknown setting in concept 'new'", code=1)
    sentence(typed("~concept.label"), "concept.label is missing", "~concept.label", code=1)


def test_version_is_ours(typed):
    assert typed("--version").out.startswith("cad_exp 0.")


@pytest.mark.parametrize("flags", [["-m"], ["--multi"], ["hydra.mode=MULTIRUN"]])
@pytest.mark.parametrize("swept", ["seed=1,2", "seed=range(1,3)", "seed=choice(1,2)"])
def test_every_form_of_a_sweep_is_one(flags: list[str], swept: str, typed):
    answer = typed(*flags, swept, "concept=church")
    assert answer.code == 0 and [config["seed"] for config, _ in answer.done] == [1, 2]
    assert "job 1: seed=1\n" in answer.out  # the concept is the same in all
    places = {folder.parent for _, folder in answer.done}
    assert len(places) == 1 and places.pop().parent == Path("outputs/multirun").absolute()


def test_a_glob_is_a_sweep_and_tracking_does_not_rename_it(typed):
    first, second = (
        typed("-m", "concept=glob(g*)", *more) for more in ([], ["tracking.project=x", "tracking=disabled"])
    )
    assert [config["concept"]["name"] for config, _ in first.done] == ["garbage_truck", "gas_pump", "golf_ball"]
    assert [folder for _, folder in first.done] == [folder for _, folder in second.done]


@pytest.mark.parametrize("name", ["it's me", "a (b), c=d", "[x] 'y'", "a\\", "ü $HOME"])
def test_a_folder_with_signs_is_swept_in_and_repeated(name: str, tmp_path: Path, typed, monkeypatch):
    (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / name)

    def run(config, graph, folder):
        raise UserError("not today")

    monkeypatch.setattr(sys.modules["cad_exp.pipeline.run"], "execute", run)
    answer = typed("-m", "concept=church,tench", "concept.label='a, b',c")
    assert answer.code == 1
    told = [line.strip() for line in answer.err.splitlines() if "python -m" in line]
    assert len(told) == 4
    monkeypatch.undo()
    for command in told:
        values = dict(back(command))
        place = Path(values["hydra.run.dir"])
        assert json.loads((place / "error.json").read_text())["command"] == command
        assert place.parent.parent == tmp_path / name / "outputs" / "multirun"
    assert {values["concept.label"] for values in map(dict, map(back, told))} == {"a, b", "c"}


def test_the_repeat_command_of_a_failed_job_runs_it(fake_run: Path):  # noqa: F811
    work = fake_run / "work" / "it's (a), b=c"
    (fake_run / "own" / "concept").mkdir(parents=True)
    (fake_run / "own" / "concept" / "mine.yaml").write_text("defaults: [tench, _self_]\n")
    work.mkdir(parents=True)
    environment = {**os.environ, "PYTHONPATH": f"{fake_run}{os.pathsep}{ROOT}"}

    def typed(*arguments: str):
        return warm.run(list(arguments), cwd=work, env=environment)

    answer = typed("-m", f"--config-dir={fake_run / 'own'}", "concept=mine,church", 'concept.noun="x, y",z')
    assert answer.returncode == 1 and "2 of 4 jobs failed" in answer.stderr, answer.stderr
    repeat = next(line.strip() for line in answer.stderr.splitlines() if "python -m" in line)
    again = typed(*shlex.split(repeat)[3:])
    assert again.returncode == 1 and again.stderr == "error: no [tench] today: take another\n"
    assert {path.name for path in work.glob("outputs/*")} <= {"multirun", "cache"}


# ---------------------------------------------------------------------------------------------- configs of the user


BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n"
BOMB += "".join(f"{new}: &{new} [{','.join([f'*{old}'] * 9)}]\n" for old, new in ("ab", "bc", "cd", "de"))


@pytest.mark.parametrize(
    "content, expected",
    [
        ("a: [1\nb: }", "(line 2)"),
        ('name: !!python/object/apply:os.system ["id"]', "tag"),
        ("name: !foo bar", "'!foo'"),
        ("name: caf\xe9".encode("latin-1"), "UTF-8"),
        ("name: x".encode("utf-16"), "UTF-8"),
        ("- a\n- b\n", "a list"),
        ("hello", "one text"),
        ("", "nothing"),
        ("name: a\nname: b\n", "duplicate key"),
        ("name:\tx\n\ty: 2", "cannot start any token"),
        ("name: a\0b", "cannot be read as YAML"),
        ("a: &a [*a]\nname: x\n", "aliases"),
        (BOMB, "aliases"),
        ("a: " + "[" * 5000, "cannot be read as YAML"),
        ("defaults: 3\nname: x", "must be a list"),
        ("name: ${", "holds a reference with ${"),
        ("defaults: [nothing, _self_]", "unknown concept 'nothing'"),
    ],
)  # fmt: skip
def test_a_broken_option_is_one_sentence(content: str | bytes, expected: str, tmp_path: Path, typed):
    file = tmp_path / "own" / "concept" / "mine.yaml"
    file.parent.mkdir(parents=True)
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    answer = typed("--config-dir", str(tmp_path / "own"), "concept=mine")
    sentence(answer, expected)
    assert str(file) in answer.err or "unknown concept" in answer.err


@pytest.mark.parametrize(
    "content, expected",
    [
        ("label: null", "concept.ratio is missing"),
        ("label: null\nratio: {head: 0.1}\ndefaults: [custom, _self_]", None),
        ("prompt: a", "concept.label is missing"),
        ("defaults: [custom, _self_]\nobjective: erase", "concept.objective=erase holds no names with values"),
    ],
)
def test_a_concept_without_our_defaults_names_what_it_lacks(content: str, expected: str | None, tmp_path: Path, typed):
    (tmp_path / "own" / "concept").mkdir(parents=True)
    own = "name: teapot\nkind: custom\nprompt: a teapot\nbase_prompt: ''\nevaluation_prompts: [a teapot]\n"
    lines = content + "\n" + "".join(line for line in own.splitlines(True) if line.split(":")[0] not in content)
    (tmp_path / "own" / "concept" / "mine.yaml").write_text(lines)
    answer = typed("--config-dir", str(tmp_path / "own"), "concept=mine")
    assert answer.code == 0 if expected is None else sentence(answer, expected, code=1) is None


@pytest.mark.parametrize("content", [b"# @package _global_", b"", b"name: caf\xe9", None])
def test_help_shows_the_other_options_beside_a_file_that_is_odd(content: bytes | None, tmp_path: Path, typed):
    (tmp_path / "own" / "concept" / "folder.yaml").mkdir(parents=True)
    (tmp_path / "own" / "concept" / "good.yaml").write_text("# object: a teapot\nname: teapot\n")
    if content is not None:
        (tmp_path / "own" / "concept" / "odd.yaml").write_bytes(content)
    answer = typed("--config-dir", str(tmp_path / "own"), "--help")
    assert answer.code == 0 and "object: a teapot" in answer.out and "folder" not in answer.out.split("good ")[0][-80:]
    sentence(typed("--config-dir", str(tmp_path / "own"), "concept=folder"), "unknown concept 'folder'")


def test_several_config_folders_count_and_the_first_wins(tmp_path: Path, typed):
    for name, nouns in {"a=b": {"mine": "first"}, "it's": {"mine": "second", "other": "third"}}.items():
        (tmp_path / name / "concept").mkdir(parents=True)
        (tmp_path / name / "config.yaml").write_text("this: is another project's\n")
        for option, noun in nouns.items():
            text = f"defaults: [_object, _self_]\nname: {option}\nnoun: {noun}\n"
            (tmp_path / name / "concept" / f"{option}.yaml").write_text(text)
    both = ["--config-dir=a=b", "-cd", "it's"]
    for option, noun in (("mine", "first"), ("other", "third")):
        [(config, _)] = typed(*both, f"concept={option}").done
        assert config["concept"]["noun"] == noun
    assert "other" in typed(*both, "--help").out


def test_searched_folders_are_put_back():
    with search_path.searched([Path("a")]):
        with search_path.searched([]):
            assert search_path._searched == []
        assert search_path._searched == [Path("a").absolute()]
    assert search_path._searched == []


# ---------------------------------------------------------------------------------------------- signals and pipes


def started(folder: Path, *arguments: str, cold: bool = False) -> subprocess.Popen:
    """cold: with a new interpreter, for a test of what happens while it starts."""
    (folder / "work").mkdir(exist_ok=True)
    how = {"cwd": folder / "work", "env": {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}}
    how |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    if not cold:
        return warm.start(list(arguments), **how)
    # a shell's background jobs ignore SIGINT, and their children would inherit that
    heard = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    return subprocess.Popen([sys.executable, "-m", "cad_exp", *arguments], **how, **heard)


def stopped(process: subprocess.Popen, number: int) -> str:
    line = ""
    while "ready" not in line:
        line = process.stdout.readline()
        assert line, process.stderr.read()
    process.send_signal(number)
    return process.communicate(timeout=60)[1]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")
@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("module", ["cad_exp.utils.console", "hydra.core.plugins", "cad_exp.config.resolve"])
def test_a_signal_during_the_start_is_one_sentence(module: str, number: int, code: int, tmp_path: Path):
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.abc, sys, time\n"
        "class Slow(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path, target=None):\n"
        f"        if name == {module!r}:\n"
        "            print('ready', flush=True)\n"
        "            time.sleep(30)\n"
        "sys.meta_path.insert(0, Slow())\n"
    )
    process = started(tmp_path, "concept=church", cold=True)
    errors = stopped(process, number)
    assert process.returncode == code and errors.count("\n") == 1 and errors.startswith("error: stopped"), errors


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")
@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_sweep_says_so_and_starts_no_other_job(number: int, code: int, fake_run: Path):  # noqa: F811
    process = started(fake_run, "-m", "concept=parachute,church", "hydra.sweep.dir=sweep")
    errors = stopped(process, number)
    assert process.returncode == code and errors.count("\n") == 1 and errors.startswith("error: stopped"), errors
    [place] = (fake_run / "work" / "sweep").glob("*/error.json")
    told = json.loads(place.read_text())
    assert told["code"] == code and told["error"].startswith("stopped") and "concept=parachute" in told["command"]
    assert not list(fake_run.glob("work/sweep/church*"))


@pytest.mark.skipif(os.name == "nt", reason="a shell's pipe")
@pytest.mark.parametrize("module", ["cad_exp", "cad_exp tables", "cad_exp search", "cad_exp cache", "cad_exp memory"])
def test_a_closed_pipe_is_quiet(module: str, tmp_path: Path):
    reader, writer = os.pipe()
    os.close(reader)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [*module.split()[1:], "--help"]
    answer = warm.start(command, cwd=tmp_path, env=environment, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert answer.communicate(timeout=60) == (None, "") and answer.returncode == 0


@pytest.mark.skipif(os.name == "nt", reason="a shell's pipe")
def test_a_sweep_goes_on_when_nobody_reads(fake_run: Path):  # noqa: F811
    process = started(fake_run, "-m", "concept=church,golf_ball,van_gogh", "hydra.sweep.dir=sweep")
    process.stdout.close()
    assert process.wait(timeout=120) == 1  # one of the three fails, as ever
    assert len(list(fake_run.glob("work/sweep/*/done"))) == 2 and "Traceback" not in process.stderr.read()


def test_exit_codes(fake_run: Path):  # noqa: F811
    assert [fake(fake_run, "concept=nudty").returncode, fake(fake_run, "concept=tench").returncode] == [2, 1]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("--concept=church", "unknown flag '--concept': concept is a setting, so write concept=church"),
        ("--edit.ratio 0.1", "unknown flag '--edit.ratio': edit.ratio is a setting, so write edit.ratio=VALUE"),
        ("help", "'help' is a flag here: python -m cad_exp --help"),
        ("--config-dir conf search", "search is a command, and its flags stand after it: python -m cad_exp search ..."),
        ("--mutlirun", "unknown flag '--mutlirun': did you mean --multirun?"),
        ("search --trials 3", "unknown flag '--trials': trials is a setting, so write trials=VALUE"),
        ("memory --model=sd14", "unknown flag '--model': model is a setting, so write model=sd14"),
        ("export RUN --to=lora", "unknown flag '--to': to is a setting, so write to=lora"),
        ("report RUN OTHER", "'OTHER' is one argument too many (--help shows what the command takes)"),
        ("report RUN --too x.html", "unknown flag '--too': did you mean --to?"),
        ("cache CACHE OTHER", "'OTHER' is one argument too many"),
        ("cache --older-than=soon", "--older-than: 'soon' is no number"),
        ("latents RUN first", "LATENT: 'first' is no whole number"),
    ],
)
def test_arguments_in_the_wrong_place_are_told_by_what_they_are(asked: str, said: str, capsys):
    assert main(asked.split()) == 2
    answer = capsys.readouterr().err
    assert answer.startswith(f"error: {said}") and answer.count("\n") == 1


@pytest.mark.parametrize(
    "asked",
    [
        ["report", ""],
        ["report", ".", "--to", " "],
        ["cache", ""],
        ["latents", "", "3"],
        ["export", "", "to=lora"],
        ["shared", "", "outputs"],
        ["tables", ""],
        ["tables", "experiment=fidelity", "--from", ""],
        ["tables", "experiment=fidelity", "--to", ""],
        ["search", "--config-dir", ""],
        ["concept=church", "--config-dir", ""],
    ],
)
def test_an_empty_path_is_not_the_current_folder(asked: list[str], tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(asked) == 2
    assert "names no file and no folder" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
