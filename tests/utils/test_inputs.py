"""What identifies an input is what its loader reads: one way to find paths, one to list folders."""

import os
from pathlib import Path

import pytest

from cad_exp.utils.errors import UserError
from cad_exp.utils.paths import find_file, find_folder, listing, names, resolve


def put(folder: Path, *files: str) -> Path:
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


def test_every_spelling_of_a_path_means_the_same(tmp_path, monkeypatch):
    put(tmp_path, "home/x/a.png")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "home")
    spellings = ("~/x", "x", "./x", "x/", f"{tmp_path}/home/x/", Path("x"))
    assert {resolve(spelling) for spelling in spellings} == {tmp_path / "home" / "x"}
    assert resolve("~nobody-of-that-name/x").parts[-2:] == ("~nobody-of-that-name", "x")


def test_links_keep_their_names(tmp_path):
    put(tmp_path, "blobs/1234")
    (tmp_path / "model.safetensors").symlink_to(tmp_path / "blobs" / "1234")
    assert resolve(tmp_path / "model.safetensors").suffix == ".safetensors"


def test_a_listing_leaves_out_what_is_hidden_and_follows_links_once(tmp_path):
    folder = put(tmp_path / "own", "b.png", "a.PNG", ".DS_Store", "._a.png", "sub/c.png", ".git/d.png", "x.png/e.png")
    put(tmp_path / "other", "f.png")
    (folder / "linked").symlink_to(tmp_path / "other")
    (folder / "again").symlink_to(folder)
    (folder / "broken.png").symlink_to(tmp_path / "nowhere")
    found = [file.relative_to(folder).as_posix() for file in listing(folder)]
    assert found == ["a.PNG", "b.png", "linked/f.png", "sub/c.png", "x.png/e.png"]
    assert [file.name for file in listing(folder, {".png"})] == ["a.PNG", "b.png", "f.png", "c.png", "e.png"]
    assert {file.name for file in names(folder)} - {file.name for file in listing(folder)} == {
        ".DS_Store",
        "._a.png",
        "broken.png",
    }


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read_is_said(tmp_path):
    put(tmp_path, "sub/a.png")
    (tmp_path / "sub").chmod(0)
    try:
        with pytest.raises(UserError, match="cannot be read"):
            listing(tmp_path)
    finally:
        (tmp_path / "sub").chmod(0o755)


@pytest.mark.parametrize("path", ["nothing", "a\0b", "x" * 5000, "", "a.txt/b"])
def test_what_is_not_there_is_one_sentence(path, tmp_path, monkeypatch):
    monkeypatch.chdir(put(tmp_path, "a.txt"))
    with pytest.raises(UserError, match="model.weights"):
        find_file(path, "model.weights")
    if path:
        with pytest.raises(UserError, match="noisy_latents.images"):
            find_folder(path, "noisy_latents.images")
    with pytest.raises(UserError, match="is a file and no folder"):
        find_folder("a.txt", "noisy_latents.images")


REAL = ["judge=real", "judge.missing=skip", "judge.parts=[resnet,inception]", "concept=church", "edit=none"]
REAL += ["judge.inception.weights='~/inception.pth'", "judge.resnet.weights='~/resnet.pth'"]
KEYS = {
    "model.weights": ["model.weights='~/x'"],
    "model.edits": ["model.edits=['~/x']"],
    "edit.path": ["edit=checkpoint", "edit.path='~/x'"],
    "model.erased": ["""model.erased=['edit=checkpoint','edit.path="~/x"']"""],
    "noisy_latents.images": ["noisy_latents.images='~/folder'"],
    "judge.resnet.weights": [*REAL[:-1], "judge.resnet.weights='~/x'"],
    "judge.inception.reference": [*REAL, "judge.inception.reference='~/folder'"],
    "statistics": [*REAL, "judge.inception.reference='~/x.npz'"],
    "prompts.path": ["prompts=coco30k", "prompts.path='~/x'", "evaluation.metrics=[quality]"],
}


@pytest.mark.parametrize("key", sorted(KEYS))
def test_a_runs_identity_sees_what_every_key_names(key, tmp_path, monkeypatch):
    """Files in the home folder: another content is another run, the same content the same run."""
    from cad_exp.config.resolve import resolve
    from cad_exp.pipeline.identity import run_identity
    from tests.config.test_configs import composed

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("cad_exp.evaluation.judge_sources.find_spec", lambda package: True)
    put(tmp_path, "x", "x.npz", "folder/a.png", "folder/b.png", "resnet.pth", "inception.pth")
    config = resolve(composed(*KEYS[key]))
    first = run_identity(config)
    for name in ("x", "x.npz", "folder/a.png"):
        (tmp_path / name).write_text("another content")
    second = run_identity(config)
    put(tmp_path, "x", "x.npz", "folder/a.png")
    (tmp_path / "folder" / ".DS_Store").write_text("hidden")
    assert first == run_identity(config) != second


def test_a_folder_of_prompts_may_be_in_the_home_folder(tmp_path, monkeypatch):
    from cad_exp.data.prompts.sources import FOLDER, locate

    monkeypatch.setenv("HOME", str(put(tmp_path, "sets/mine.csv")))
    monkeypatch.setenv(FOLDER, "~/sets")
    settings = {"path": None, "file": None, "name": "mine", "hub": None, "revision": None}
    assert locate(settings) == tmp_path / "sets" / "mine.csv" == locate(settings | {"path": "~/sets/mine.csv"})
