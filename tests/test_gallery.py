"""The gallery shows finished runs as their folders left them, from the command a user types."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from PIL import Image

import cad_exp
from cad_exp.reporting.results import load_results

ROOT = Path(__file__).resolve().parents[1]
SMALL = ["model.steps=2", "noisy_latents.samples=2", "noisy_latents.steps=2", "evaluation.samples=2"]
SMALL += ["evaluation.retention_samples=1", "evaluation.fidelity=null", "tracking=disabled"]


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory) -> Path:
    """A finished run, with the overrides that the command line writes down."""
    folder = tmp_path_factory.mktemp("runs") / "church"
    overrides = ["concept=church", "granularity=head", "edit=erase", *SMALL]
    cad_exp.run(cad_exp.compose([*overrides, f"runtime.cache={folder.parent / 'cache'}"]), folder)
    (folder / "config").mkdir(exist_ok=True)
    (folder / "config" / "overrides.yaml").write_text(yaml.safe_dump([*overrides, "runtime.cache=null"]))
    return folder


def gallery(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "docs" / "make_gallery.py"), *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)


def test_a_finished_run_is_shown_with_its_command_verdict_and_picture(run_folder: Path, tmp_path: Path):
    (run_folder / "report.html").write_text("<title>the report</title>")
    done = gallery(run_folder, "--to", tmp_path / "page.md")
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "page.md").read_text()
    run = load_results(run_folder)["run"]
    assert "## church, head, erase" in text and run["verdict"]["edit"] in text.replace("\\", "")
    assert (
        "`python -m cad_exp concept=church granularity=head edit=erase model.steps=2 " in text
        and "runtime.cache" not in text
    )
    (picture,) = (tmp_path / "images" / "page").iterdir()  # no report without --reports
    assert f"](images/page/{picture.name})" in text
    with Image.open(picture) as image:
        assert image.width == 900 and image.height <= 620
    assert gallery(run_folder, "--to", tmp_path / "page.md", "--reports").returncode == 0
    report = picture.with_suffix(".html")
    assert report.read_text() == "<title>the report</title>"
    assert f"](images/page/{report.name})" in (tmp_path / "page.md").read_text()


def test_what_is_not_finished_is_named_and_left_out(run_folder: Path, tmp_path: Path):
    broken = tmp_path / "broken"
    broken.mkdir()
    content = json.loads((run_folder / "results.json").read_text())
    content["run"]["complete"] = False
    (broken / "results.json").write_text(json.dumps(content))
    done = gallery(broken, "--to", tmp_path / "page.md")
    assert done.returncode == 1 and "there is no finished run below" in done.stderr and "Traceback" not in done.stderr
    assert str(broken) in done.stderr and not (tmp_path / "page.md").exists()
    assert "there is no folder" in gallery(tmp_path / "nowhere", "--to", tmp_path / "page.md").stderr


def test_one_command_makes_the_runs_and_the_page(run_folder: Path, tmp_path: Path):
    """Two runs: one fails, is named and does not stop the other, whose report comes along."""
    cache = f"runtime.cache={run_folder.parent / 'cache'}"
    small = " ".join(["concept=church granularity=head edit=erase", *SMALL, cache])
    (tmp_path / "runs.yaml").write_text(yaml.safe_dump(["concept=chruch", small], width=1000))
    done = gallery(
        "--make", tmp_path / "runs", "--runs", tmp_path / "runs.yaml", "--to", tmp_path / "a.md", "--reports"
    )
    assert done.returncode == 1 and "this run failed, and is left out: concept=chruch" in done.stderr
    assert "did you mean church?" in done.stderr and "Traceback" not in done.stderr
    text = (tmp_path / "a.md").read_text()
    assert text.count("## ") == 1 and "`python -m cad_exp concept=church granularity=head edit=erase " in text
    (folder,) = (tmp_path / "runs").iterdir()
    (report,) = (tmp_path / "images" / "a").glob("*.html")
    assert report.read_bytes() == (folder / "report.html").read_bytes() and f"](images/a/{report.name})" in text
    before = (folder / "edit.safetensors").stat().st_mtime_ns
    (tmp_path / "runs.yaml").write_text(yaml.safe_dump([small], width=1000))
    again = gallery("--make", tmp_path / "runs", "--runs", tmp_path / "runs.yaml", "--to", tmp_path / "b.md")
    assert again.returncode == 0 and (folder / "edit.safetensors").stat().st_mtime_ns == before
    assert len(list((tmp_path / "runs").iterdir())) == 1


def test_a_wrong_list_of_runs_is_one_sentence(tmp_path: Path):
    assert "give folders of runs, or --make FOLDER" in gallery().stderr
    for content, told in (
        (None, "cannot be read"),
        ("- concept='church", "No closing quotation"),
        ("a: 1", "is no list of commands"),
        ("[1]", "is no list of commands"),
    ):
        if content is not None:
            (tmp_path / "runs.yaml").write_text(content)
        done = gallery("--make", tmp_path / "runs", "--runs", tmp_path / "runs.yaml")
        assert done.returncode == 1 and told in done.stderr and done.stderr.count("\n") == 1


def test_the_list_of_the_gallery_can_be_composed():
    for told in yaml.safe_load((ROOT / "docs" / "gallery.yaml").read_text()):
        cad_exp.compose(told.split())
