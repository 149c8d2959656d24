"""Sentences for people name no class of Python: not of ours, and not of the libraries beneath."""

import ast
from pathlib import Path

import pytest

import cad_exp
from cad_exp.utils.errors import closest, reason_of

PACKAGE = Path(cad_exp.__file__).parent
ERRORS = ("UserError", "WrongFlag", "Refused")


def sentences(text: str):
    """Every call that raises an error for a person."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in ERRORS:
            yield node


def names_a_class(call: ast.Call) -> bool:
    return "__name__" in ast.unparse(call)


def test_no_error_for_a_person_names_a_class():
    found = []
    for file in sorted(PACKAGE.rglob("*.py")):
        own = [call for call in sentences(file.read_text(encoding="utf-8")) if names_a_class(call)]
        found += [f"{file.relative_to(PACKAGE)}:{call.lineno}" for call in own]
    assert not found
    assert any(map(names_a_class, sentences("raise UserError(f'{type(x).__name__} is wrong')")))


@pytest.mark.parametrize(
    "error, said",
    [
        (ValueError("no\n  colours"), "no colours"),
        (KeyError("unet"), "'unet' is missing"),
        (ConnectionError(), "it gives no reason"),
        (RuntimeError("Error(s) in loading state_dict for UNet2DConditionModel:\n\tsize mismatch"), "size mismatch"),
        (ValueError("x" * 500), "x" * 150),
    ],
)
def test_a_librarys_error_is_told_in_one_line(error, said):
    assert reason_of(error) == said


@pytest.mark.parametrize(
    ("word", "options", "meant"),
    [
        ("wnda", ["random", "wanda"], "wanda"),
        ("nan", ["random", "wanda"], None),  # two letters of five are alike
        ("on", ["none", "erase"], None),
        ("off", ["auto", "offline", "disabled"], "disabled"),
        ("null", ["auto", "none"], "none"),
        (None, ["auto", "none"], "none"),
        (False, ["auto", "fast"], None),
        ("1e5", ["1e6", "15"], None),
        ("2024-01-01", ["2024"], None),
        ("sd1", ["sd14", "mini"], "sd14"),
    ],
)
def test_a_word_that_yaml_reads_as_no_text_is_no_slip_of_a_name(word: object, options: list[str], meant: str | None):
    assert closest(word, options) == meant
