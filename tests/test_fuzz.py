"""A twentieth of the fuzz, and that it sees what it looks for: a fuzz that finds nothing may be blind."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzzing import files, overrides
from tests.fuzzing.command import Answer
from tests.fuzzing.sandbox import Sandbox
from tests.fuzzing.shell import SCRIPTS
from tests.fuzzing.verdict import judge, printed_commands

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(
    "overrides, files, scripts",
    [(25, 6, 2), pytest.param(500, 90, len(SCRIPTS), marks=pytest.mark.slow)],
    ids=["a twentieth", "whole"],
)
def test_the_fuzz_finds_nothing(overrides: int, files: int, scripts: int):
    """In a process of its own: Hydra, the logging module and torch leave nothing behind in the other tests'."""
    sizes = ["--overrides", str(overrides), "--files", str(files), "--shell", str(scripts)]
    command = [sys.executable, "-m", "tests.fuzzing", *sizes]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    answer = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stdout[-6000:] + answer.stderr[-2000:]


def test_the_cases_are_many_and_the_same_for_a_seed():
    cases = list(overrides.generate(500, 0))
    assert len(set(cases)) > 450 and cases == list(overrides.generate(500, 0)) != list(overrides.generate(500, 1))
    assert {case.kind for case in overrides.generate(25, 0)} == {kind.__name__ for kind in overrides.KINDS}
    found = list(files.generate(60, 0))
    assert len({(case.kind, case.note) for case in found}) == 60 and len({case.kind for case in found[:6]}) == 6


@pytest.mark.parametrize(
    "code, err, what",
    [
        (1, "Traceback (most recent call last):\n  File\nKeyError: 'x'", "traceback"),
        (1, "error: unexpected KeyError: 'x' (details in run.log)", "unexpected"),
        (2, "error: LexerNoViableAltException: x=é ^ See https://hydra.cc", "parser"),
        (2, "error: no viable alternative at input '{a'", "parser"),
        (2, "error: Interpolation key 'x' not found full_key: hydra.run.dir", "parser"),
        (1, "", "silent"),
        (1, "error: one\nerror: two", "sentences"),
        (0, "/somewhere/hydra.py:1: UserWarning: x", "sentences"),
        (1, "error: the prompt '\x1b[31mred' is empty", "terminal"),
        (3, "error: x", "code"),
    ],
)
def test_what_is_wrong_with_an_answer_is_seen(code: int, err: str, what: str):
    assert what in {finding.what for finding in judge(Answer(code, "", err), "")}


@pytest.mark.parametrize(
    "answer",
    [
        Answer(0, "run folder  outputs/x\n", ""),
        Answer(2, "", "error: unknown concept 'nudty': did you mean nudity? There are: church, nudity"),
        Answer(1, "", "error: 2 rows are malformed in 'x.csv':\n  line 2: the prompt is empty\n  line 3: so is this"),
        Answer(130, "", "error: stopped; the same command continues where it was"),
    ],
)
def test_a_good_answer_is_no_finding(answer: Answer):
    assert judge(answer, "") == []


def test_a_users_own_word_is_no_finding():
    answer = Answer(2, "", "error: unknown concept 'LexerNoViable': there are: church")
    assert judge(answer, "concept=LexerNoViable concept 'LexerNoViable':") == []


def test_touched_files_are_seen(tmp_path: Path):
    sandbox = Sandbox(tmp_path / "root")
    sandbox.remember()
    assert sandbox.touched() == [] and sandbox.strewn() == []
    (sandbox.work / "outputs" / "x").mkdir(parents=True)
    assert sandbox.touched() == [] and sandbox.strewn() == []
    os.utime(sandbox.work / ".env")
    (sandbox.work / "link").unlink()
    (sandbox.work / "new").touch()
    (tmp_path / "root" / "a" / "new").touch()
    assert [name.rpartition("/")[2] for name in sandbox.touched()] == [".env", "link"]
    assert len(sandbox.strewn()) == 2


def test_printed_commands_are_taken_apart_as_a_shell_does():
    text = (
        "error: 1 of 2 jobs failed\nerror: bad luck\n       python -m cad_exp seed=13 'hydra.run.dir=a,b'\n"
        "\nsweep folder  a,b  (python -m cad_exp tables 'a b')\n       python -m cad_exp it's\n"
    )
    first = ["python", "-m", "cad_exp", "seed=13", "hydra.run.dir=a,b"]
    assert printed_commands(Answer(1, "", text)) == [first, ["python", "-m", "cad_exp", "tables", "a b"], []]
