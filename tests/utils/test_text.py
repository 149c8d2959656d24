"""Strings of users and files where people see them: terminals, pictures, Markdown, LaTeX, CSV."""

import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.image import imread

from cad_exp.reporting import summary
from cad_exp.reporting.figures.before_after import before_after
from cad_exp.reporting.figures.lettering import readable, wrapped
from cad_exp.reporting.tables.write import escaped, markdown_table
from cad_exp.utils import console, text

ROOT = Path(__file__).resolve().parents[2]
EVIL = "a\x1b[2J\x1b]0;title\x07b\x9b31m\rc\x08\u202ed\x00 :church: [bold]e[/] [link=http://x]f[/link] \ud800"


def test_controls_and_directions_are_written_out():
    assert text.safe("a\x1b[31m\tb\nc\r\x7f\x9b\u202e\u2066\ud800") == (
        "a\\x1b[31m\tb\nc\\x0d\\x7f\\x9b\\u202e\\u2066\\ud800"
    )
    assert text.line("a\r\nb\tc\u2028d") == "a b c d" and text.safe("教会 é ⛪ مرحبا") == "教会 é ⛪ مرحبا"


@given(st.text(st.characters(exclude_categories=[])))
def test_no_text_moves_the_cursor(given):
    for shown in (text.safe(given), text.line(given), text.markdown(given), text.cell(given)):
        assert not any(ord(c) < 32 and c not in "\n\t" or 127 <= ord(c) < 160 for c in shown)
        shown.encode()  # half characters too
    assert text.ascii_only(text.safe(given)).isascii() and "\n" not in text.line(given)


def test_a_markdown_cell_stays_one_cell_of_text():
    cell = text.markdown("a|b\n<img src=x> `c` *d* [e](http://x) R&D 1 < 2")
    assert cell == "a|b &lt;img src=x> \\`c\\` \\*d\\* [e]\\(http://x) R&D 1 < 2"
    assert markdown_table(["h"], [[cell]]).splitlines()[2].startswith("| a\\|b &lt;img")


def test_a_formula_in_csv_is_text_and_a_number_stays_one():
    assert [text.cell(value) for value in ("=1+1", "+x", "-x", "@x", " =1", "\t=1")] == [
        "'=1+1", "'+x", "'-x", "'@x", "' =1", "'\t=1",
    ]  # fmt: skip
    assert [text.cell(value) for value in ("-0.5", "+1e3", "church", -0.5, None)] == [
        "-0.5", "+1e3", "church", -0.5, None,
    ]  # fmt: skip


def test_latex_of_a_text_of_many_lines_is_one_line():
    assert escaped("50 % of\n\nx_1\x1b") == r"50 \% of x\_1\textbackslash{}x1b"


def test_identifiers():
    assert text.identifier("Van Gogh/é:1") == "Van_Gogh_e_1" and text.identifier("教会") == "_"


@pytest.mark.parametrize("speak", [console.say, console.stage, console.page])
def test_markup_emoji_and_escapes_stay_text(speak, capsys):
    speak(EVIL)
    said = capsys.readouterr().out
    assert ":church:" in said and "[bold]e[/] [link=http://x]f[/link]" in said and "\\x1b[2J" in said
    assert not set(said) & set("\x1b\x07\x9b\r\x08\u202e\x00\ud800")


def test_an_error_and_a_place_are_neutral_too(capsys, tmp_path):
    console.error(EVIL)
    summary.show_places({"run\x1b": tmp_path / "a[b]:church:\x1b[2J"})
    said = capsys.readouterr()
    assert "\x1b" not in said.err + said.out and ":church:" in said.err and "a[b]:church:\\x1b[2J" in said.out


SPEAK = """
from cad_exp.reporting import summary
from cad_exp.utils import console
metric = {"name": "concept_rate", "variant": "edited", "value": 0.5, "low": 0.1, "high": 0.9, "n": 4,
          "higher_is_better": False, "definition": {}, "changes": {}}
summary.show_metrics([metric], "教会 · é")
console.stage("→ “x” ⛪")
console.page("a → b · c")
console.error("…")
"""
ENVIRONMENTS = [{"PYTHONIOENCODING": "ascii"}, {"LANG": "C"}, {"LC_ALL": "C"}, {"PYTHONIOENCODING": "latin-1"}]


@pytest.mark.parametrize("environment", ENVIRONMENTS, ids=str)
def test_an_ascii_terminal_gets_ascii(environment):
    kept = {key: value for key, value in os.environ.items() if key not in ("LANG", "LC_ALL", "PYTHONIOENCODING")}
    command = [sys.executable, "-c", SPEAK]
    done = subprocess.run(command, env=kept | environment, cwd=ROOT, capture_output=True)
    assert done.returncode == 0, done.stderr
    shown = done.stdout + done.stderr
    assert (
        shown.isascii() and b"\\u6559\\u4f1a" in shown and b"concept rate (lower)" in shown and b"a -> b . c" in shown
    )


def test_another_terminal_keeps_its_signs():
    kept = {key: value for key, value in os.environ.items() if key not in ("LANG", "LC_ALL")}
    done = subprocess.run([sys.executable, "-c", SPEAK], env=kept | {"PYTHONIOENCODING": "utf-8"}, cwd=ROOT,
                          capture_output=True, text=True, encoding="utf-8")  # fmt: skip
    assert "教会 · é" in done.stdout and "a → b · c" in done.stdout and "concept rate ↓" in done.stdout


def test_what_only_shows_costs_one_line(capsys):
    reasons = []
    with console.harmless("map.png", reasons.append):
        raise RuntimeError("no\nfont")
    said = capsys.readouterr().err.splitlines()
    assert said == ["  map.png is left out: it cannot be made (no font)"]
    assert reasons == ["no font"]
    with pytest.raises(ValueError), console.harmless("map.png", passes=(ValueError,)):
        raise ValueError


PROMPTS = [
    "$$ cash and $100$",
    "$\\frac{$",
    "教会 in 東京",
    "كنيسة",
    "⛪ 😀 👨‍👩‍👧",
    "",
    "W" * 300,
    EVIL,
    "a_b^c \\x",
    "\u0e01\u0e33",
]


def test_any_prompt_can_be_drawn_without_a_warning(tmp_path):
    images = {"unedited": {prompt: np.zeros((1, 8, 8, 3), np.uint8) for prompt in PROMPTS}}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        picture = imread(before_after(images, tmp_path / "sheet.png", "$$ 教会 " + "long " * 50))
    labels = picture[130:, :150, 0]  # left of the images: every prompt has ink, and none touches the edge
    assert (labels.min(1) < 0.5).sum() > 100 and labels[:, :2].min() > 0.9


def test_the_same_words_are_the_same_picture_and_dollars_are_drawn(tmp_path):
    def drawn(prompt: str) -> bytes:
        image = {"unedited": {prompt: np.zeros((1, 8, 8, 3), np.uint8)}}
        return before_after(image, tmp_path / "sheet.png").read_bytes()

    assert drawn("$x$") == drawn("$x$") != drawn("x")


def test_what_no_font_holds_gets_a_stand_in(monkeypatch):
    monkeypatch.setattr("cad_exp.reporting.figures.lettering._held", lambda families: set(map(chr, range(32, 127))))
    assert readable("⛪ 中 a\ufe0f") == ":church: \\u4e2d a"


def test_lines_of_a_label():
    assert wrapped("a photo of a church", 18, 5) == "a photo of a\nchurch" and wrapped(" \n", 18, 5) == "(no words)"
    assert all(len(row) <= 18 for row in wrapped("word " * 60, 18, 5).split("\n"))
    assert len(wrapped("word " * 60, 18, 5).split("\n")) == 5 and wrapped("word " * 60, 18, 5).endswith(" ...")
