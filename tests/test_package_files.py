"""What surrounds the package: citation, changelog, issue forms; no file of the repository needs a symbolic link."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

import cad_exp

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_the_citation_is_of_this_version_and_its_paper():
    told = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert told["cff-version"] == "1.2.0" and told["version"] == PROJECT["version"] == cad_exp.__version__
    assert told["authors"] == [{"name": author["name"]} for author in PROJECT["authors"]]
    assert told["license"] == PROJECT["license"] and told["abstract"] == PROJECT["description"]
    [paper] = told["references"]
    assert "2412.02542" in paper["url"] and [each["family-names"] for each in paper["authors"]] == [
        "Nguyen",
        "Phan",
        "Doan",
    ]


def test_the_changelog_keeps_its_form_and_knows_this_version():
    """Keep a Changelog: what is not released first, then versions with their dates; the first version is announced."""
    text = (ROOT / "CHANGELOG.md").read_text()
    unreleased, *versions = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert unreleased == "[Unreleased]"
    assert all(re.fullmatch(r"\[[\d.]+\] - \d{4}-\d\d-\d\d", each) for each in versions)
    kinds = re.findall(r"^### (.*)$", text, re.MULTILINE)
    assert set(kinds) <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    version = PROJECT["version"]
    assert f"the first will be {version}." in text or any(each.startswith(f"[{version}]") for each in versions)


@pytest.mark.parametrize("name", ["bug", "wrong_number", "feature"])
def test_issue_forms_are_whole(name):
    form = yaml.safe_load((ROOT / ".github" / "ISSUE_TEMPLATE" / f"{name}.yml").read_text())
    assert {"name", "description", "body"} <= set(form)
    assert all(part["attributes"]["label"] for part in form["body"])
    assert len({part["id"] for part in form["body"]}) == len(form["body"])


def test_classifiers_name_the_versions_of_python_that_are_allowed():
    versions = [each.rpartition(" ")[2] for each in PROJECT["classifiers"] if "Python :: 3." in each]
    assert PROJECT["requires-python"] == ">=3.11,<3.14" and versions == ["3.11", "3.12", "3.13"]


def test_extras_that_pages_name_are_there():
    import re

    text = "".join(path.read_text() for path in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
    named = {extra for found in re.findall(r"\.\[([\w,]+)\]", text) for extra in found.split(",")}
    assert named and named <= set(PROJECT["optional-dependencies"])


def test_no_symbolic_links():
    """They break in zips and on Windows."""
    listed = subprocess.run(["git", "-C", str(ROOT), "ls-files", "-s"], capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("no checkout of git")
    assert [line for line in listed.stdout.splitlines() if line.startswith("120000")] == []
