"""The site is built strictly out of the pages: every link leads somewhere, nothing is fetched, all pages are found."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

import cad_exp

pytest.importorskip("material", reason="needs mkdocs-material: pip install -e '.[docs]'")
pytest.importorskip("mkdocstrings_handlers.python", reason="needs mkdocstrings: pip install -e '.[docs]'")

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"


def hooks_of(root: Path):
    """The module docs/hooks.py of a checkout."""
    spec = importlib.util.spec_from_file_location("site_hooks", root / "docs" / "hooks.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


HOOKS = hooks_of(ROOT)


def build(root: Path, to: Path) -> subprocess.CompletedProcess[str]:
    # without -q, which makes mkdocs count no warnings, and so pass everything
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", str(to)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(root)}
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("built") / "site"
    done = build(ROOT, folder)
    assert done.returncode == 0, done.stderr
    return folder


class Reader(HTMLParser):
    """What a page of the site links to, fetches and can be reached by."""

    def __init__(self, page: Path):
        super().__init__()
        self.links: set[str] = set()
        self.fetched: set[str] = set()
        self.names: set[str] = set()
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.names |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.links.add(given["href"])
        if tag in {"script", "img", "iframe", "source", "video", "object"} and "src" in given:
            self.fetched.add(given["src"])
        if tag == "link" and given.get("rel") not in {"canonical", "prev", "next"}:
            self.fetched.add(given["href"])


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Reader]:
    return {page.resolve(): Reader(page) for page in site.rglob("*.html") if page.name != "404.html"}


def test_every_link_of_the_site_leads_somewhere(pages: dict[Path, Reader]):
    lost = []
    for page, read in pages.items():
        for link in read.links | read.fetched:
            parts = urlsplit(link)
            if parts.scheme:
                continue
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            reached = target in pages and (not parts.fragment or unquote(parts.fragment) in pages[target].names)
            if not (reached or (target.is_file() and target not in pages)):
                lost.append(f"{page.name}: {link}")
    assert not lost


def test_nothing_is_fetched_from_elsewhere(site: Path, pages: dict[Path, Reader]):
    assert {url for read in pages.values() for url in read.fetched if urlsplit(url).netloc} == set()
    ours = [path.read_text(encoding="utf-8") for path in site.rglob("*.css")]
    assert not [text for text in ours if "url(http" in text or "url(//" in text or "@import" in text]


def test_every_page_is_on_the_site_in_the_navigation_and_in_the_search(site: Path):
    sources = [path.relative_to(ROOT).as_posix() for path in [ROOT / "README.md", *DOCS.rglob("*.md")]]
    expected = {HOOKS.place(path) for path in sources}
    found = {entry["location"].partition("#")[0] for entry in json.loads(index_of(site))["docs"]}
    assert {page.removesuffix(".md") + ".html" for page in expected} <= found | {"index.html" if "" in found else ""}
    named: set[str] = set()
    for entry in HOOKS.navigation():
        for page in entry.values():
            named |= {page} if isinstance(page, str) else {to for inner in page for to in inner.values()}
    assert expected <= named


def test_the_search_finds_pages_and_no_files_that_are_only_shown(site: Path, pages: dict[Path, Reader]):
    found = {entry["location"].partition("#")[0] for entry in json.loads(index_of(site))["docs"]}
    assert (site / "repository" / "LICENSE.html").resolve() in pages and "repository/LICENSE.html" not in found
    boosted = {entry["location"].partition("#")[0] for entry in json.loads(index_of(site))["docs"] if "boost" in entry}
    assert boosted == {"concepts.html"}


def test_no_line_breaks_within_an_interval():
    text = "| .10 [-.05, +.20] | [.05, .20](there.md) | `[.05, .20]` |"
    assert HOOKS.in_one_piece(text) == text.replace("[-.05, ", "[-.05,\u00a0")


def index_of(site: Path) -> str:
    return (site / "search" / "search_index.json").read_text(encoding="utf-8")


def test_the_api_page_has_every_public_name_once_with_what_its_docstring_says(site: Path, pages: dict[Path, Reader]):
    named = HOOKS.API_NAME.findall((ROOT / HOOKS.API).read_text(encoding="utf-8"))
    assert sorted(named) == cad_exp.__all__
    shown = pages[(site / "reference" / "api.html").resolve()].names
    assert {f"cad_exp.{cad_exp._HOME[name]}.{name}" for name in named} <= shown


@pytest.mark.parametrize(
    ("page", "link", "moved"),
    [
        ("README.md", "docs/images/dose.png", "images/dose.png"),
        ("README.md", "LICENSE", "repository/LICENSE.md"),
        ("docs/index.md", "../README.md", "index.md"),
        ("docs/seeds.md", "../benchmarks/README.md#a", "repository/benchmarks/README.md#a"),
        ("docs/guides/sae.md", "../results/dose.md", "../results/dose.md"),
        ("benchmarks/README.md", "../docs/results/dose.md", "../../results/dose.md"),
        ("docs/seeds.md", "https://arxiv.org/abs/1", "https://arxiv.org/abs/1"),
        ("docs/seeds.md", "#here", "#here"),
    ],
)
def test_links_move_with_their_pages(page: str, link: str, moved: str):
    assert HOOKS.moved(f"[a]({link}) `[b]({link})`", page) == f"[a]({moved}) `[b]({link})`"


def test_a_page_that_is_wrong_stops_the_build(tmp_path: Path):
    """All faults at once in a copy of the checkout, without its weights: each of them is named."""
    copy = tmp_path / "copy"
    copy.mkdir()
    for part in ("README.md", "mkdocs.yml", "LICENSE"):
        shutil.copy(ROOT / part, copy / part)
    for part in ("docs", "benchmarks", "cad_exp", "conf", "tests"):
        shutil.copytree(ROOT / part, copy / part, ignore=shutil.ignore_patterns("weights", "__pycache__"))
    # without the API, which takes the longest: the copy is about links
    (copy / "docs" / "reference" / "api.md").write_text("# Python\n", encoding="utf-8")
    for path, old, new in [
        (
            "docs/seeds.md",
            "\n## ",
            "\n[lost](no_page.md), [gone](index.md#no-heading), ![bare](images/no_picture.png)\n\n## ",
        ),
        ("docs/index.md", "| [Caching](caching.md)", "| [Caching](cashing.md)"),
        ("README.md", "\n## ", "\n[lost](docs/no_guide.md), [lost](docs/no_folder/)\n\n## "),
    ]:
        text = (copy / path).read_text(encoding="utf-8")
        assert old in text
        (copy / path).write_text(text.replace(old, new, 1), encoding="utf-8")
    done = build(copy, tmp_path / "site")
    assert done.returncode != 0
    for fault in (
        "no_page.md",
        "#no-heading",
        "no_picture.png",
        "cashing.md",
        "caching.md",
        "no_guide.md",
        "no_folder",
    ):
        assert fault in done.stderr, fault
