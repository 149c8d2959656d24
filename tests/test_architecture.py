"""The house stands: imports go down, as the contracts in pyproject.toml say, and the page that explains it is true."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from importlinter.cli import lint_imports

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


def test_imports_go_down(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    assert lint_imports(cache_dir=None) == 0, capsys.readouterr().out


def test_an_import_that_goes_up_is_found(tmp_path: Path, monkeypatch, capsys):
    """The contract itself can fail: a copy of two floors in which the lower one imports the upper one."""
    for floor, text in {"cli": "", "utils": "import cad_exp.cli\n"}.items():
        (tmp_path / "cad_exp" / floor).mkdir(parents=True)
        (tmp_path / "cad_exp" / floor / "__init__.py").write_text(text)
    (tmp_path / "cad_exp" / "__init__.py").write_text("")
    (tmp_path / "setup.cfg").write_text(
        "[importlinter]\nroot_package = cad_exp\n\n[importlinter:contract:1]\nname = floors\ntype = layers\n"
        "layers =\n    cad_exp.cli\n    cad_exp.utils\n"
    )
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports; raise SystemExit(lint_imports())"]
    answer = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env={"PYTHONPATH": str(tmp_path)})
    assert answer.returncode == 1 and "cad_exp.utils is not allowed to import cad_exp.cli" in answer.stdout


def test_the_page_names_every_floor():
    shown = set(re.findall(r"^    (\w+)/ ", PAGE, re.MULTILINE))
    floors = {path.parent.name for path in (ROOT / "cad_exp").glob("*/__init__.py")}
    assert shown == floors and len(list((ROOT / "cad_exp").iterdir())) - ("__pycache__" in floors) <= 15


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`(\w+/[\w/]+\.py)`", PAGE))))
def test_the_files_that_the_page_names_are_there(name: str):
    assert (ROOT / "cad_exp" / name).is_file() or (ROOT / name).is_file()
