"""The pages are true: their links lead somewhere, the index names all, their commands and snippets work.

A block of shell or Python runs as a reader would run it. Else a comment before it says why: `<!-- not run: WHY -->`, or
`<!-- only composed: WHY -->`, where the config of every command is made and nothing runs.
"""

import doctest
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import yaml
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

import cad_exp
from cad_exp.cli import COMMANDS
from cad_exp.config import compose, options
from cad_exp.config.compose import Composer
from cad_exp.config.resolve import resolve
from cad_exp.mini.judge import MiniJudge
from cad_exp.pipeline.cache.folder import SIGNATURE, TAG, VERSION
from cad_exp.reporting.tables.study import read
from cad_exp.utils.errors import UserError
from tests.pictures import undrawn

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
FOLDERS = ("docs", "benchmarks", "cad_exp", "notebooks", "conf", "tests")
TEMPLATE = ROOT / "cad_exp" / "mini" / "card_template.md"  # of a page, with gaps
OUTER = sorted(ROOT.glob("*.md"))
PAGES = [*OUTER, *sorted(page for folder in FOLDERS for page in (ROOT / folder).rglob("*.md") if page != TEMPLATE)]
FENCE = re.compile(r"(?:^<!-- (?P<fate>.*?) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
ADDRESS = re.compile(r"https?://(?:[a-z0-9-]+\.)+[a-z]{2,}(?::\d+)?(?:/[\w./~%+:@#?=&,;!-]*)?")
# a command within a sentence or a table; one with a gap (FOLDER, <name>, ...) says how commands look
INLINE = re.compile(r"`(python -m cad_exp [^`\n]+)`")
GAP = re.compile(r"\.\.\.|<|\b(?:FOLDER|NUMBER|FILE|NAME|group|option)\b")
FATE = re.compile(r"(not run|only composed): (\S.*)")
# arguments that a command does not hand on to the run's config; launchers need their plugins
NOT_OF_A_RUN = {name: ("hydra",) for name in ("run", *COMMANDS)}
NOT_OF_A_RUN["search"] = ("hydra", "trials=", "retention=", "folder=", "space.")


@dataclass(frozen=True)
class Block:
    page: Path
    number: int
    language: str
    text: str
    fate: str  # "run", "not run", "only composed", or a comment that is none of these

    def __str__(self) -> str:
        return f"{name_of(self.page)}-{self.number}"


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks_of(page: Path) -> list[Block]:
    """The fenced blocks of a page, with what the comment before each says."""
    found = []
    for number, match in enumerate(FENCE.finditer(page.read_text(encoding="utf-8")), 1):
        comment = match["fate"]
        fits = FATE.fullmatch(comment or "")
        fate = "run" if comment is None else fits[1] if fits else comment
        found.append(Block(page, number, match["language"], match["text"], fate))
    return found


# test_extend.py builds what docs/extend.md shows
BLOCKS = [block for page in PAGES if page != DOCS / "extend.md" for block in blocks_of(page)]


def prose(page: Path) -> str:
    """A page without its blocks, comments and code, where a bracket is no link."""
    text = re.sub(r"```.*?```|<!--.*?-->", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    text = "\n".join(line for line in text.splitlines() if not line.startswith("    "))
    return re.sub(r"`[^`\n]*`", "", text)


@cache
def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    heads = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL), re.M)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def links(page: Path) -> list[str]:
    return re.findall(r"\]\(([^)\s]+)\)|src=\"([^\"]+)\"", prose(page))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_and_pictures_exist(page: Path):
    for link in ("".join(parts) for parts in links(page)):
        if "://" in link:
            assert ADDRESS.fullmatch(link), f"{link} is no address"
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{link} leads nowhere"
        assert ROOT in target.parents, f"{link} leads out of the repository"
        assert not anchor or anchor in anchors(target), f"{link}: no such heading"


def test_the_index_names_every_page_once():
    index = DOCS / "index.md"
    named = ["".join(parts) for parts in links(index)]
    pages = {path.relative_to(DOCS).as_posix() for path in {*DOCS.rglob("*.md")} - {index}}
    # the site's navigation is the index, so the pages beside the README belong to it as well
    outside = {f"../{page.name}" for page in OUTER} | {"../benchmarks/README.md"}
    assert sorted(named) == sorted(pages | outside)


def test_every_fence_is_that_of_a_block_that_is_looked_at():
    """A block that is indented, or has other fences, would escape the tests below."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        fences = re.findall(r"^[ >]*(?:```|~~~)", text, re.M)
        assert len(fences) == 2 * len(blocks_of(page)), name_of(page)


def test_every_picture_is_shown():
    shown = {(page.parent / "".join(parts)).resolve() for page in PAGES for parts in links(page)}
    drawn = {path for ending in ("png", "jpg", "svg") for path in (DOCS / "images").rglob(f"*.{ending}")}
    assert drawn <= shown


def test_the_readme_is_one_screen():
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 80
    assert [line for line in lines if len(line) > 140 and not line.startswith("|") and "](" not in line] == []


@pytest.mark.parametrize("page", sorted((DOCS / "results").glob("*.md")), ids=name_of)
def test_results_have_one_shape_and_a_date(page: Path):
    text = page.read_text(encoding="utf-8")
    if page.name == "index.md":
        return
    assert re.findall(r"^## (.*)$", text, re.M) == ["Protocol", "Table", "What it says", "Limits", "Command"]
    assert "**Question.** " in text
    assert re.search(r"^\*Numbers of \d+ \w+ 20\d\d\W.*git revision.*\b[0-9a-f]{7}\b", text, re.M)


def commands(text: str) -> list[list[str]]:
    """What every `python -m cad_exp` of a shell block is given."""
    found = []
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        while "python" in words:
            words = words[words.index("python") :]
            end = next((at for at, word in enumerate(words) if word in {"&&", "|", ">"}), len(words))
            if words[1:3] == ["-m", "cad_exp"]:
                found.append(words[3:end])
            words = words[max(end, 1) :]
    return found


def test_commands_are_found_in_a_block():
    text = "pip install -e . && python -m cad_exp a=1 \\\n  b='c d'  # python -m cad_exp no\npython -m other\n"
    assert commands(text) == [["a=1", "b=c d"]]


@pytest.fixture(scope="module")
def composer() -> Iterator[Composer]:
    """One for all commands: it reads every file of conf/ once."""
    with compose.hydra([options.conf_folder()]) as made:
        yield made


@cache
def ends(composer: Composer, overrides: tuple[str, ...]) -> list[list[str]]:
    """The overrides of the first and the last job of a sweep; test_experiments.py runs the first of every study."""
    jobs, _ = composer.sweep(list(overrides))
    return jobs[-1:] if any(word.startswith("experiment=") for word in overrides) else [jobs[0], jobs[-1]]


@cache
def settled(composer: Composer, overrides: tuple[str, ...]) -> None:
    """Make the config of one job, as a run does before any work. UserError or Hydra's error for what makes no sense."""
    resolve(composer.job(list(overrides)))


def check(composer: Composer, arguments: list[str]) -> None:
    """Make the config that a command asks for; of a sweep, and of a study's table, those of its first and last job."""
    name, given = (arguments[0], arguments[1:]) if arguments[0] in COMMANDS else ("run", arguments)
    flags = {word for word in given if word.startswith("-")}
    assert flags <= {"-m"}, "a block with other flags runs, or says why not"
    asked = [word for word in given if "=" in word and not word.startswith(NOT_OF_A_RUN[name])]
    for job in ends(composer, tuple(asked)) if "-m" in flags or name == "tables" else [asked]:
        settled(composer, tuple(word for word in job if not word.startswith("hydra")))


def test_a_wrong_command_is_found(composer: Composer):
    wrong = ["concept=nobody", "edit.ration=1", "-m concept=church,nobody", "tables experiment=x", "search edit.x=1"]
    for command in wrong:
        with pytest.raises((UserError, HydraException, OmegaConfBaseException)):
            check(composer, command.split())


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_every_block_runs_or_says_why_not(block: Block):
    assert block.fate in {"run", "not run", "only composed"}, f"what does this comment say? {block.fate}"
    assert block.language in {"bash", "python", "yaml", "json", "toml"}, "a block names its language"
    assert block.fate != "only composed" or commands(block.text)


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.fate == "only composed"], ids=str)
def test_commands_compose(block: Block, composer: Composer):
    for arguments in commands(block.text):
        check(composer, arguments)


def unquoted(text: str) -> list[str]:
    """The settings in shell commands that zsh takes for names of files, and refuses because there are none."""
    bare = [re.sub(r"'[^']*'|\"[^\"]*\"", "''", line).partition(" #")[0] for line in text.splitlines()]
    words = [word for line in bare if not line.startswith("#") for word in line.split()]
    return [word for word in words if re.search(r"\[|=.*[*?]", word)]


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language == "bash"], ids=str)
def test_commands_can_be_pasted_into_zsh(block: Block):
    """It is the shell of every Mac."""
    assert not unquoted(block.text)


def test_words_that_zsh_refuses_are_found():
    assert unquoted("a b=[1] 'c=[1]' # [x]\n# [y]\npip install .[dev] -e '.[dev]' \"x*\"") == ["b=[1]", ".[dev]"]


COMMANDS_IN_TEXT = sorted({found for page in PAGES for found in INLINE.findall(page.read_text(encoding="utf-8"))})


@pytest.mark.parametrize("command", [each for each in COMMANDS_IN_TEXT if not GAP.search(each)])
def test_commands_within_the_text_compose(command: str, composer: Composer):
    """A table of commands is as true as a block; those of docs/extend.md need the package that it builds."""
    page = (DOCS / "extend.md").read_text(encoding="utf-8")
    (given,) = commands(command)
    if command not in page and not {"--help", "--version"} & set(given):
        check(composer, given)


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.language in {"json", "toml"} and b.fate == "run"], ids=str)
def test_data_is_read(block: Block):
    assert {"json": json.loads, "toml": tomllib.loads}[block.language](block.text)


@pytest.mark.parametrize("name", cad_exp.__all__)
def test_examples_of_docstrings_run(name: str, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    value = getattr(cad_exp, name)
    for test in doctest.DocTestFinder().find(value, name, globs={"cad_exp": cad_exp}) if callable(value) else ():
        with undrawn():
            assert doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test).failed == 0


@pytest.mark.parametrize(
    ("group", "registry"),
    [("granularity", "GRANULARITIES"), ("objective", "OBJECTIVES"), ("estimator", "ESTIMATORS"), ("edit", "METHODS")],
)
def test_the_api_page_says_what_every_registry_holds(group: str, registry: str):
    text = (DOCS / "reference" / "api.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1] for line in text.splitlines() if line.startswith(f"| `{group}=")]
    told = re.findall(rf"`{group}=(\w+)`", " ".join(rows))
    held = getattr(cad_exp, registry)
    assert sorted(told) == sorted(name for name in held.names() if held.where(name).origin == "cad_exp")


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.language == "bash" and b.fate == "run"], ids=str)
def test_shell_runs(block: Block, tmp_path: Path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to(sys.executable)
    (tmp_path / "outputs" / "cache").mkdir(parents=True)
    (tmp_path / "outputs" / "cache" / TAG).write_text(f"{SIGNATURE}\n{VERSION}\n")
    path = f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    command = ["bash", "-euo", "pipefail", "-c", block.text]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("page", sorted({b.page for b in BLOCKS if b.language == "python"}), ids=name_of)
def test_python_runs(page: Path, tmp_path: Path, monkeypatch):
    """The snippets of a page run one after the other, as a reader would type them."""
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for block in blocks_of(page):
        if block.language == "python" and block.fate == "run":
            with undrawn():
                exec(block.text, names)
    assert isinstance(names["images"], np.ndarray) and names["images"].shape[1:] == (64, 64, 3)
    if page.name == "README.md":  # its edit is the page's promise: most churches are gone
        seen, _ = MiniJudge().labels(names["images"])
        assert (seen["object"] == "church").mean() <= 0.5


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.language == "yaml" and b.fate == "run"], ids=str)
def test_a_studys_section_is_read(block: Block):
    study = read(yaml.safe_load(block.text)["study"], "shown")
    assert study.title and study.rows and study.cells
