"""How a command starts and ends where its surroundings are odd: one sentence and an exit code, from every command."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import warm
from tests.cli.test_cli import ROOT

COMMANDS = ("tables", "search", "cache", "hookpoints", "latents", "memory", "plugins", "shared")
MODULES = ("cad_exp", *(f"cad_exp {command}" for command in COMMANDS), "cad_exp.mini")
pytestmark = pytest.mark.skipif(os.name == "nt", reason="written for a POSIX shell")


def typed(script: str, folder: Path, **settings: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHON": sys.executable, **settings}
    return subprocess.run(["bash", "-c", script], cwd=folder, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("module", MODULES)
def test_a_full_disk_behind_the_output_is_one_sentence(module: str, tmp_path: Path):
    if not os.path.exists("/dev/full"):
        pytest.skip("this system has no disk without room")
    answer = typed(f'"$PYTHON" -m {module} --help > /dev/full', tmp_path)
    expected = "error: what is printed cannot be written (No space left on device): make room\n"
    assert (answer.returncode, answer.stderr) == (1, expected)


@pytest.mark.parametrize("module", MODULES)
def test_closed_streams_are_no_error(module: str, tmp_path: Path):
    answer = typed(f'"$PYTHON" -m {module} --help >&-', tmp_path)
    assert (answer.returncode, answer.stderr) == (0, "")
    assert typed(f'"$PYTHON" -m {module} --no-such-flag 2>&-', tmp_path).returncode == 2


@pytest.mark.parametrize("flag, code", [("--help", 0), ("--no-such-flag", 2)])
@pytest.mark.parametrize("command", COMMANDS)
def test_flags_are_answered_without_torch(command: str, flag: str, code: int, tmp_path: Path):
    script = (
        f"import sys\nfrom cad_exp.__main__ import main\ntry:\n    code = main({[command, flag]})\n"
        "except SystemExit as stop:\n    code = stop.code\nprint(code, 'torch' in sys.modules)\n"
    )
    answer = warm.run([], code=script, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert answer.stdout.splitlines()[-1] == f"{code} False", answer.stderr


@pytest.mark.parametrize("module", MODULES)
def test_a_wrong_flag_is_one_sentence(module: str, tmp_path: Path):
    answer = typed(f'"$PYTHON" -m {module} --no-such-flag', tmp_path)
    assert answer.returncode == 2 and answer.stderr.startswith("error: ") and answer.stderr.count("\n") == 1


@pytest.mark.parametrize("command", ["-m cad_exp -m seed=1,2", "-m cad_exp seed=1", "-m cad_exp tables seed=1"])
def test_a_current_folder_that_is_gone_is_one_sentence(command: str, tmp_path: Path):
    answer = typed(f'mkdir gone && cd gone && rmdir ../gone && "$PYTHON" {command}', tmp_path)
    expected = "error: the current folder is gone: change to one that is there\n"
    assert (answer.returncode, answer.stderr) == (2, expected)


@pytest.mark.parametrize("name, value", [("WORLD_SIZE", "x"), ("WORLD_SIZE", ""), ("RANK", "²")])
def test_an_environment_that_counts_no_processes_is_one_sentence(name: str, value: str, tmp_path: Path):
    answer = typed('"$PYTHON" -m cad_exp seed=1', tmp_path, **{"WORLD_SIZE": "2", name: value})
    assert answer.returncode == 2 and answer.stderr.count("\n") == 1
    assert f"the environment variable {name} is '{value}'" in answer.stderr
