"""`python -m cad_exp export FOLDER to=hub` against a hub that speaks the true protocol, and the way back."""

from pathlib import Path

import numpy as np
import pytest

import cad_exp
from cad_exp.__main__ import main
from cad_exp.interventions.load_edit import FILE, edit_file
from tests import hub_server
from tests.pipeline.test_experiment import fast

NAME = "user/no-church"


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run whose edit is of a few neurons."""
    folder = tmp_path_factory.mktemp("run")
    fast(folder, "concept=church", "granularity=neuron", "edit.ratio=0.01", "evaluation=none")
    return folder


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """An empty hub, and a login that may write. What is downloaded goes into a cache of its own."""
    with hub_server.serving() as served:
        reach(monkeypatch, served.address)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("HF_TOKEN", hub_server.WRITER)
        yield served


def reach(monkeypatch, address: str) -> None:
    """Do what HF_ENDPOINT, HF_HUB_DISABLE_XET and an absent HF_HUB_OFFLINE do in a process of its own."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
    template = f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr("huggingface_hub.file_download.HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)


def push(capsys, run: Path, *more: str) -> tuple[int, str, str]:
    """The exit code, and what the command said on both streams."""
    capsys.readouterr()
    code = main(["export", str(run), "to=hub", f"repository={NAME}", *more])
    return code, *capsys.readouterr()


def images(model: cad_exp.DiffusionModel) -> np.ndarray:
    return model.generate(["a photo of a church"] * 2, seeds=range(2), steps=2)


def test_what_was_pushed_is_downloaded_and_draws_the_same(run, hub, capsys):
    code, out, _ = push(capsys, run, "private=true")
    assert code == 0 and out.startswith(f"{hub.address}/{NAME}") and hub.private == {NAME}
    there = hub.repositories[NAME]
    assert set(there) == {FILE, "README.md", "results.json"}
    assert there[FILE] == (run / FILE).read_bytes() and list(hub.uploaded.values()) == [there[FILE]]
    assert f'cad_exp.load_edit(pipe, "{NAME}")' in there["README.md"].decode()
    model = cad_exp.DiffusionModel.load("mini", device="cpu")
    before = images(model)
    with cad_exp.load_edit(model, run):
        edited = images(model)
    with cad_exp.load_edit(model, NAME):
        assert np.array_equal(images(model), edited) and not np.array_equal(edited, before)
    assert np.array_equal(images(model), before)


def test_an_edit_is_pushed_again_into_the_same_repository(run, hub, capsys):
    for _ in range(2):
        hub.repositories.get(NAME, {}).pop("README.md", None)
        assert push(capsys, run)[0] == 0 and "README.md" in hub.repositories[NAME]
    assert not hub.private


REFUSED = {
    "": "the hub needs a login for 'user/no-church': log in by `hf auth login`",
    "hf_unknown": "the hub needs a login for 'user/no-church': log in by `hf auth login`",
    hub_server.READER: "this login may not write to 'user/no-church' (You don't have the rights to create a model",
}


@pytest.mark.parametrize("token", REFUSED)
def test_who_may_not_write_is_told_so(token, run, hub, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "none"))
    monkeypatch.setenv("HF_TOKEN", token)
    told(push(capsys, run), REFUSED[token])
    assert not hub.repositories


def test_a_hub_out_of_reach_is_told(run, hub, capsys, monkeypatch):
    reach(monkeypatch, "http://127.0.0.1:9")  # where nothing listens
    told(push(capsys, run), "the hub cannot be reached for 'user/no-church' (", "give the same command again")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    told(push(capsys, run), "HF_HUB_OFFLINE forbids to reach the hub")


def test_an_edit_that_cannot_be_had_is_told(hub, monkeypatch):
    with pytest.raises(cad_exp.UserError, match="^the hub has no 'user/no-church', or it needs a login"):
        edit_file(NAME)
    hub.repositories[NAME] = {"README.md": b"not an edit"}
    with pytest.raises(cad_exp.UserError, match="^'user/no-church' on the hub holds no edit.safetensors"):
        edit_file(NAME)
    reach(monkeypatch, "http://127.0.0.1:9")
    monkeypatch.setattr("time.sleep", lambda _: None)  # the library tries again five times
    with pytest.raises(cad_exp.UserError, match="^the hub cannot be reached for 'user/no-church'"):
        edit_file(NAME)


def told(answer: tuple[int, str, str], *sentences: str) -> None:
    """Assert that a command failed with one line that says all this."""
    code, out, err = answer
    assert code == 1 and not out and err.startswith("error: ") and err.strip().count("\n") == 0, answer
    assert all(sentence in err for sentence in sentences), err
