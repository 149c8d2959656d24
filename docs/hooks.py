"""Makes the site out of the repository as it is: pages keep the links that work in the repository's own view.

1. `docs/index.md` is the navigation: each table is a section, each link in it a page. There is no second list.
2. A link that leaves `docs/` brings its file into the site: a page or a picture as it is, anything else as a page that
   shows its text. So the README, the model card and the licence are there too.
3. The API is the tables of `docs/reference/api.md`: below each table stands what the docstrings of its names say.
"""

import posixpath
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

import cad_exp

ROOT = Path(__file__).resolve().parents[1]
DOCS = "docs/"
INDEX = "docs/index.md"
API = "docs/reference/api.md"
# where a file of the repository is on the site: as in docs/, these in places of their own, and others below OUTSIDE
OUTSIDE = "repository/"
PLACES = {"README.md": "index.md", INDEX: "pages.md"}
AS_THEY_ARE = {".md", ".png", ".jpg", ".jpeg", ".svg", ".html"}
LANGUAGES = {".py": "python", ".yaml": "yaml", ".yml": "yaml", ".toml": "toml", ".json": "json", ".sh": "bash"}
LINK = re.compile(r"(?P<head>\]\(|(?:src|href)=\")(?P<to>[^)\s\"]+)")
CODE = re.compile(r"^```.*?^```$|^~~~.*?^~~~$|`[^`\n]+`", re.MULTILINE | re.DOTALL)
SECTION = re.compile(r"^(?:\*\*(?P<section>[^*]+)\*\*.*|(?P<row>\|.*))$", re.MULTILINE)
PAGE = re.compile(r"\[(?P<title>[^\]]+)\]\((?P<to>[^)#\s]+)\)")
API_TABLE = re.compile(r"^\| name \|.*\n\|[-| ]+\n(?:\|.*\n?)+", re.MULTILINE)
API_NAME = re.compile(r"^\| `(\w+)`", re.MULTILINE)
INTERVAL = re.compile(r"(\[[-+]?[\d.]+,) ([-+]?[\d.]+\])(?!\()")  # [.05, .20], and not a link
FIRST = {"docs/concepts.md": 4}  # pages that a search names early: by how much their hits count


def place(path: str) -> str:
    """Return where a file of the repository is on the site; both are paths from the top."""
    if path in PLACES or path.startswith(DOCS):
        return PLACES.get(path, path.removeprefix(DOCS))
    plain = Path(path).suffix in AS_THEY_ARE
    return OUTSIDE + path if plain else f"{OUTSIDE}{path}.md"


def behind(address: str) -> str:
    """Return the file of the repository behind a place on the site: the other way round than `place`."""
    named = {there: path for path, there in PLACES.items()}
    if address in named:
        return named[address]
    return address.removeprefix(OUTSIDE) if address.startswith(OUTSIDE) else DOCS + address


def leads_to(page: str, link: str) -> str | None:
    """Return the file of the repository that a link on one of its pages leads to; None for an address or an anchor."""
    path = unquote(link.partition("#")[0])
    if not path or re.match(r"[a-z]+:", path):
        return None
    return posixpath.normpath(posixpath.join(posixpath.dirname(page), path))


def prose(text: str) -> list[tuple[str, bool]]:
    """Return the parts of a page in order, each with whether it is prose, where links are links, or code."""
    parts, at = [], 0
    for match in CODE.finditer(text):
        parts += [(text[at : match.start()], True), (match[0], False)]
        at = match.end()
    return [*parts, (text[at:], True)]


def links(text: str) -> list[str]:
    """Return every link of a page, as it is written."""
    return [match["to"] for part, is_prose in prose(text) if is_prose for match in LINK.finditer(part)]


def moved(text: str, page: str) -> str:
    """Return a page of the repository with its links as they are on the site."""
    here = posixpath.dirname(place(page))

    def new(match: re.Match[str]) -> str:
        target = leads_to(page, match["to"])
        if target is None:
            return match[0]
        anchor = match["to"].partition("#")[2]
        return match["head"] + posixpath.relpath(place(target), here or ".") + (f"#{anchor}" if anchor else "")

    return "".join(LINK.sub(new, part) if is_prose else part for part, is_prose in prose(text))


def shown(path: str) -> str:
    """Return the page that shows a file, or the names in a folder, that is neither page nor picture."""
    file = ROOT / path
    if file.is_dir():
        names = sorted(child.name + "/" * child.is_dir() for child in file.iterdir() if child.name[0] not in "._")
        return f"# {path}/\n\n" + "\n".join(f"- `{name}`" for name in names) + "\n"
    language = LANGUAGES.get(file.suffix, "text")
    return f"# {path}\n\n````{language}\n{file.read_text(encoding='utf-8')}\n````\n"


def in_one_piece(text: str) -> str:
    """Return a page in which no line breaks within an interval."""
    return "".join(INTERVAL.sub("\\1\u00a0\\2", part) if is_prose else part for part, is_prose in prose(text))


def navigation() -> list[dict[str, Any]]:
    """Return the navigation that `docs/index.md` is; pages outside `docs/` that it names are in it."""
    made: list[dict[str, Any]] = [{"Home": place("README.md")}]
    entries = made
    for line in SECTION.finditer((ROOT / INDEX).read_text(encoding="utf-8")):
        if line["section"]:
            entries = []
            made.append({line["section"]: entries})
        for page in PAGE.finditer(line["row"] or ""):
            title = page["title"][0].upper() + page["title"][1:]
            entries.append({title: place(str(leads_to(INDEX, page["to"])))})
    return [*made, {"All pages": place(INDEX)}]


def reference(text: str) -> str:
    """Return the API page with, below each table, what the docstrings of its names say."""

    def described(match: re.Match[str]) -> str:
        homes = (f"cad_exp.{cad_exp._HOME[name]}.{name}" for name in API_NAME.findall(match[0]))
        return match[0] + "\n" + "\n".join(f"::: {home}\n" for home in homes)

    return API_TABLE.sub(described, text)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Take the navigation from the index."""
    config.nav = navigation()
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Bring in what the pages link to outside `docs/`, and what that links to."""
    pages = [DOCS + file.src_uri for file in files.documentation_pages()]
    files.remove(files.src_uris[INDEX.removeprefix(DOCS)])
    for path, address in PLACES.items():
        files.append(File.generated(config, address, abs_src_path=str(ROOT / path)))
    known = {*pages, *PLACES}
    waiting = sorted(known)
    while waiting:
        page = waiting.pop()
        for link in links((ROOT / page).read_text(encoding="utf-8")):
            target = leads_to(page, link)
            if target is None or target in known or target.startswith((DOCS, "..")) or not (ROOT / target).exists():
                continue  # there already, or a broken link, which is reported
            known.add(target)
            files.append(_brought(config, target))
            waiting += [target] if target.endswith(".md") else []
    return files


def _brought(config: MkDocsConfig, path: str) -> File:
    """Return the file of the site for one of the repository that lies outside `docs/`."""
    suffix, hidden = Path(path).suffix, InclusionLevel.NOT_IN_NAV
    if suffix in AS_THEY_ARE:
        return File.generated(config, place(path), abs_src_path=str(ROOT / path), inclusion=hidden)
    return File.generated(config, place(path), content=shown(path), inclusion=hidden)


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn the links of a page to where things are on the site, and fill in the API."""
    path = behind(page.file.src_uri)
    if not (ROOT / path).is_file():
        page.meta["search"] = {"exclude": True}
        return markdown  # a file's text, shown on a page that was made here
    for link in links(markdown):
        target = leads_to(path, link)
        if target is not None and target.startswith(".."):
            raise PluginError(f"{path}: {link} leads out of the repository")
    if path in FIRST:
        page.meta["search"] = {"boost": FIRST[path]}
    markdown = in_one_piece(moved(markdown, path))
    return reference(markdown) if path == API else markdown
